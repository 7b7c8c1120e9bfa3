"""The pages for admins: mailboxes, people, categories, answer times, webhooks, the audit log, cost."""
