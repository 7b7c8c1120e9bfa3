"""Mailbox to database and queue: everything that talks IMAP or reads email bytes."""
