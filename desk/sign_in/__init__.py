"""Who comes in: passwords, links, second factors, OpenID, sessions, one's own account and tokens."""
