"""A mailbox that is being connected: what was entered, checked, and made into the mailbox to be."""

import re
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from starlette.datastructures import FormData

from briefbox.connecting import Found, FoundEmail, FoundFolder
from briefbox.errors import InvalidValueError, NotFoundError
from briefbox.settings import Settings
from briefbox.store import drafts, secrets
from briefbox.tables import Mailbox, MailboxDraft
from desk.context import Desk
from desk.tools import MailboxTools

Key = Annotated[str, Path(max_length=80)]

SECURITY = ("tls", "starttls", "none")
OLDER = ("closed", "briefed", "open")
ATTACHMENTS = ("keep", "reference")
WHERE = ("host", "port", "security", "username")
MAX_NAME, MAX_TEXT, MAX_SECRET, MAX_DAYS = 60, 300, 2000, 9999
# Folders are named by fields of one name; a server may have very many.
MAX_FIELDS = 400


async def _form(request: Request) -> FormData:
    return await request.form(max_files=0, max_fields=MAX_FIELDS)


class Form:
    """The fields of a form as text. A control character in one of them is refused: IMAP cannot carry it."""

    def __init__(self, data: FormData) -> None:
        self._data = data

    def text(self, name: str, *, called: str = "", most: int = MAX_TEXT, strip: bool = True) -> str:
        """One field; "" where it is missing. Raises InvalidValueError."""
        value = self._data.get(name, "")
        value = value if isinstance(value, str) else ""
        return checked(value.strip() if strip else value, called or name, most)

    def raw(self, name: str) -> str:
        """What was typed, to be shown again."""
        value = self._data.get(name, "")
        return value if isinstance(value, str) else ""

    def all(self, name: str, *, called: str = "") -> list[str]:
        """All fields of this name, each once. Raises InvalidValueError."""
        values = [value for value in self._data.getlist(name) if isinstance(value, str) and value.strip()]
        return list(dict.fromkeys(checked(value, called or name, MAX_TEXT) for value in values))

    def lines(self, name: str, *, called: str = "") -> list[str]:
        """The lines of a text area. Raises InvalidValueError."""
        value = self._data.get(name, "")
        lines = re.split(r"[\r\n]+", value) if isinstance(value, str) else []
        return list(
            dict.fromkeys(checked(line.strip(), called or name, MAX_TEXT) for line in lines if line.strip())
        )


def _as_form(data: Annotated[FormData, Depends(_form)]) -> Form:
    return Form(data)


TheForm = Annotated[Form, Depends(_as_form)]


def checked(value: str, called: str, most: int) -> str:
    """The value, if it is one line of reasonable length. Raises InvalidValueError."""
    if any(ord(ch) < 32 or ord(ch) == 127 for ch in value):
        raise InvalidValueError(
            f"The {called} holds a line break or another control character; type it again."
        )
    if len(value) > most:
        raise InvalidValueError(f"The {called} has {len(value)} characters; expected at most {most}.")
    return value


def tools_of(desk: Desk) -> MailboxTools:
    """What reaches mailbox servers. Raises NotFoundError in a desk without it."""
    if desk.tools.mailboxes is None:
        raise NotFoundError(
            "This desk was started without what reaches mailbox servers; use `briefbox mailbox add`."
        )
    return desk.tools.mailboxes


def address_of(text: str) -> str:
    """An address of ours. Raises InvalidValueError."""
    local, at, domain = text.rpartition("@")
    if not (local and at and "." in domain) or " " in text:
        raise InvalidValueError(f"“{text}” is no e-mail address; expected one such as support@example.org.")
    return text


def port_of(text: str) -> int:
    """Raises InvalidValueError."""
    if not text.isdecimal() or len(text) > 5 or not 0 < int(text) < 65536:
        raise InvalidValueError(
            f"The port “{text}” is none; expected a number from 1 to 65535, usually 993 or 143."
        )
    return int(text)


def one_of(value: str, allowed: tuple[str, ...], called: str) -> str:
    """Raises InvalidValueError."""
    if value not in allowed:
        raise InvalidValueError(f"The {called} “{value}” is none of {', '.join(allowed)}.")
    return value


def start_of(choice: str, days: str) -> str:
    """now, all, or so many days. Raises InvalidValueError."""
    if choice in ("now", "all"):
        return choice
    if choice != "days" or not days.isdecimal() or len(days) > 4 or not 0 < int(days) <= MAX_DAYS:
        raise InvalidValueError(f"“{days}” is no number of days; expected one from 1 to {MAX_DAYS}.")
    return f"{int(days)} days"


def mailbox_of(draft: MailboxDraft, settings: Settings) -> Mailbox:
    """The mailbox to be, as far as it is known, with its sign-in encrypted for it. Not stored."""
    values, cipher = draft.values, secrets.cipher(settings)
    secret = drafts.secret(draft, cipher)
    by_token = values.get("auth") == "oauth2"
    name = str(values["name"])
    return Mailbox(
        name=name,
        address=values["address"],
        host=values["host"],
        port=values["port"],
        security=values["security"],
        username=values["username"],
        auth="oauth2" if by_token else "password",
        oauth=values.get("oauth", {}) if by_token else {},
        password_encrypted="" if by_token else cipher.encrypt(name, secret.get("password", "")),
        oauth_encrypted=cipher.encrypt(name, secret["tokens"]) if by_token and "tokens" in secret else "",
        folders=list(values.get("folders") or ["INBOX"]),
        sent_folder=values.get("sent_folder", ""),
        addresses=list(values.get("addresses", [])),
        start_at=values.get("start_at", "now"),
        older=values.get("older", "closed"),
        attachments=values.get("attachments", "keep"),
        vetted=True,
    )


def where(values: dict[str, Any]) -> list[Any]:
    """The server and the user that a secret was entered for: it goes to no other."""
    return [values.get(name) for name in WHERE]


def as_facts(found: Found) -> dict[str, Any]:
    """What a test found, as JSON."""
    facts = asdict(found)
    for email in facts["newest"]:
        email["date"] = email["date"].isoformat() if email["date"] else ""
    return facts


def found_of(draft: MailboxDraft) -> Found | None:
    """What the test found; None before there was one that went well."""
    facts = draft.facts.get("found")
    if not facts:
        return None
    return Found(
        server=facts["server"],
        folders=tuple(FoundFolder(**folder) for folder in facts["folders"]),
        newest=tuple(
            FoundEmail(e["sender"], e["subject"], datetime.fromisoformat(e["date"]) if e["date"] else None)
            for e in facts["newest"]
        ),
        idle=facts["idle"],
    )
