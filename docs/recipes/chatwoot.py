"""Puts each brief onto the Chatwoot conversation that came of the same mail: a private note and two labels.

    export CHATWOOT_ADDRESS=https://chatwoot.example.org
    export CHATWOOT_ACCOUNT=1
    export CHATWOOT_TOKEN=...     # an agent's access token: Profile settings
    python chatwoot.py 8099       # and what listen.py needs, beside which this stands

The conversation is looked for among those of the sender, and told by its message with the same Message-ID (Chatwoot
keeps it as source_id). Without such a message it is taken only if there is no other.
"""

import os
import sys
from typing import Any
from urllib.parse import quote

from listen import ask, listen, words


def chatwoot(method: str, path: str, body: Any = None) -> Any:
    """One request to Chatwoot's API."""
    address, account = os.environ["CHATWOOT_ADDRESS"].rstrip("/"), os.environ["CHATWOOT_ACCOUNT"]
    headers = {"api_access_token": os.environ["CHATWOOT_TOKEN"]}
    return ask(method, f"{address}/api/v1/accounts/{account}{path}", headers, body)


def find_conversation(email: dict[str, Any]) -> int | None:
    """The conversation that this mail made or joined."""
    sender = email["sender"]["address"].lower()
    contacts = chatwoot("GET", f"/contacts/search?q={quote(sender)}")["payload"]
    found = [
        int(conversation["id"])
        for contact in contacts
        if (contact.get("email") or "").lower() == sender
        for conversation in chatwoot("GET", f"/contacts/{contact['id']}/conversations")["payload"]
    ]
    for number in found:
        for message in chatwoot("GET", f"/conversations/{number}/messages")["payload"]:
            if email["message_id"] and (message.get("source_id") or "").strip("<>") == email["message_id"]:
                return number
    return found[0] if len(found) == 1 else None


def push(brief: dict[str, Any], email: dict[str, Any]) -> None:
    """Note and labels. Raises LookupError, for another try later, while the conversation is not there."""
    number = find_conversation(email)
    if number is None:
        raise KeyError(f"no conversation for {email['message_id'] or email['subject']}")
    # Setting labels replaces all of them, and none may hold a space.
    kept = chatwoot("GET", f"/conversations/{number}/labels")["payload"]
    mine = [f"{field}-{brief[field]['label']}".replace(" ", "-") for field in ("priority", "category")]
    others = [label for label in kept if not label.startswith(("priority-", "category-"))]
    chatwoot("POST", f"/conversations/{number}/labels", {"labels": others + mine})
    # Last, since it is the one thing that does harm when it is done twice.
    note = {"content": words(brief), "message_type": "outgoing", "private": True}
    chatwoot("POST", f"/conversations/{number}/messages", note)


if __name__ == "__main__":
    listen(int(sys.argv[1]), push).serve_forever()
