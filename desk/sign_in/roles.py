"""What each role may do, in words. What a route asks for is desk/access.py."""

ROLES = {
    "agent": "Works in the queue: reads mail and briefs, corrects, confirms, assigns and finishes.",
    "reviewer": "All that, and looks after the learning: starts and stops training, is the second person who puts an adapter in use, rolls back, and decides where people or adapters disagree.",
    "admin": "All that, and everything else: mailboxes, people, categories, webhooks, audit log. Sees every mailbox.",
}
