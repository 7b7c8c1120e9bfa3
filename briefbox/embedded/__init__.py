"""Servers that run inside one machine: Valkey for `briefbox up`, an IMAP server for the demo."""
