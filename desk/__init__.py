"""The agent queue and the admin pages, server-rendered."""
