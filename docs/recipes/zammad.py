"""Puts each brief onto the Zammad ticket that came of the same mail: an internal note and two tags.

    export ZAMMAD_ADDRESS=https://zammad.example.org
    export ZAMMAD_TOKEN=...       # an access token of an agent, permission ticket.agent
    python zammad.py 8099         # and what listen.py needs, beside which this stands

The ticket is looked for by subject and sender, and told by its article with the same Message-ID. Without such an
article it is taken only if there is no other.
"""

import os
import sys
from typing import Any
from urllib.parse import quote

from listen import ask, listen, words


def zammad(method: str, path: str, body: Any = None) -> Any:
    """One request to Zammad's API."""
    headers = {"Authorization": f"Token token={os.environ['ZAMMAD_TOKEN']}"}
    return ask(method, f"{os.environ['ZAMMAD_ADDRESS'].rstrip('/')}/api/v1{path}", headers, body)


def find_ticket(email: dict[str, Any]) -> int | None:
    """The ticket that this mail made or joined."""
    parts = [f'title:"{plain(email["subject"])}"', f'customer.email:"{plain(email["sender"]["address"])}"']
    found = zammad("GET", f"/tickets/search?query={quote(' AND '.join(parts))}&limit=10")
    tickets = found["tickets"] if isinstance(found, dict) else [ticket["id"] for ticket in found]
    for ticket in tickets:
        for article in zammad("GET", f"/ticket_articles/by_ticket/{ticket}"):
            if email["message_id"] and (article.get("message_id") or "").strip("<>") == email["message_id"]:
                return int(ticket)
    return int(tickets[0]) if len(tickets) == 1 else None


def plain(text: str) -> str:
    """Without what means something in a search."""
    return " ".join("".join(" " if letter in '"\\' else letter for letter in text).split())


def push(brief: dict[str, Any], email: dict[str, Any]) -> None:
    """Note and tags. Raises LookupError, for another try later, while the ticket is not there."""
    ticket = find_ticket(email)
    if ticket is None:
        raise KeyError(f"no ticket for {email['message_id'] or email['subject']}")
    note = {
        "ticket_id": ticket,
        "subject": "Brief",
        "body": words(brief),
        "content_type": "text/plain",
        "type": "note",
        "internal": True,
    }
    for field in ("priority", "category"):
        item = f"{field}: {brief[field]['label']}"
        zammad("POST", "/tags/add", {"item": item, "object": "Ticket", "o_id": ticket})
    # Last, since it is the one thing that does harm when it is done twice.
    zammad("POST", "/ticket_articles", note)


if __name__ == "__main__":
    listen(int(sys.argv[1]), push).serve_forever()
