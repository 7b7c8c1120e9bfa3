"""What happened in a conversation, newest first: its mails, the notes of agents, and between them what was done."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlmodel import Session

from briefbox.schemas import ParsedEmail
from briefbox.store import actions, activities, assignees
from briefbox.tables import Activity, Conversation, Email, Note, User
from desk.times import say_time

# Most characters of one mail's text on the page; a browser takes seconds to lay out more.
MAX_SHOWN = 100_000
# They are shown by what they left: the note itself, the action that is struck through.
_SHOWN_ELSEWHERE = ("noted", "undone")
_SAID = {
    "unassigned": "gave it back",
    "reopened": "put it back into the queue",
    "done": "finished it",
    "unmerged": "took this apart again from what it was merged into",
    "confirmed": "said that the brief is right",
}
_REGROUPED = {"merged": "merged into this", "split": "split this off from"}
_BY_ITSELF = {
    "woken": "It came back: it was put off until now",
    "answered": "Answered by a mail of ours",
    "reopened": "Back in the queue: a new mail came",
}


@dataclass(frozen=True, slots=True)
class MailView:
    """One mail as plain text: the new part, and the quoted history to unfold."""

    email: Email
    parsed: ParsedEmail
    text: str
    quoted: str
    num_cut: int

    @property
    def ours(self) -> bool:
        """Whether one of our own addresses sent it."""
        return self.email.kind == "own"


@dataclass(frozen=True, slots=True)
class Did:
    """Something that was done, as a sentence in pieces: who, what, with what."""

    who: str  # "" where it came about
    what: str
    value: str
    before: str
    reason: str
    at: datetime
    undone: bool


@dataclass(slots=True)
class Part:
    """One part of the story: a mail, a note, or what was done between two of them."""

    at: datetime
    mail: MailView | None = None
    note: tuple[Note, User] | None = None
    done: list[Did] = field(default_factory=list)


def story(
    session: Session, conversation: Conversation, mails: Sequence[MailView], moment: datetime, timezone: str
) -> list[Part]:
    """All of it, newest first; what was done between two mails or notes is one part."""
    parts = [Part(mail.email.received_at, mail=mail) for mail in mails]
    parts += [
        Part(note.created_at, note=(note, user)) for note, user in actions.notes(session, conversation.id)
    ]
    parts += [Part(did.at, done=[did]) for did in _done(session, conversation, moment, timezone)]
    # Of two at the same moment the mail came first, so that it stands below.
    parts.sort(key=lambda part: (part.at, part.mail is None), reverse=True)
    joined: list[Part] = []
    for part in parts:
        if part.done and joined and joined[-1].done:
            joined[-1].done += part.done
        else:
            joined.append(part)
    return joined


def mail_view(email: Email) -> MailView:
    """One mail as the page shows it."""
    parsed = ParsedEmail.model_validate(email.parsed)
    text, whole = parsed.reply.strip() or parsed.text.strip(), parsed.text.strip()
    # What follows the new part is history; where the parser took it from the middle, the whole text is.
    quoted = whole.removeprefix(text).strip() if whole != text else ""
    return MailView(
        email=email,
        parsed=parsed,
        text=text[:MAX_SHOWN],
        quoted=quoted[:MAX_SHOWN],
        num_cut=max(0, len(text) - MAX_SHOWN) + max(0, len(quoted) - MAX_SHOWN),
    )


def _done(session: Session, conversation: Conversation, moment: datetime, timezone: str) -> Iterable[Did]:
    found = [
        (activity, user)
        for activity, user in activities.of(session, conversation.id)
        if activity.kind not in _SHOWN_ELSEWHERE
    ]
    people = assignees.names(
        session, (activity.detail.get("after") for activity, _ in found if activity.kind == "assigned")
    )
    for activity, user in found:
        who = "" if user is None else user.name or user.email
        what, value, before = _in_words(activity, user, people, moment, timezone)
        yield Did(
            who=who,
            what=what,
            value=value,
            before=before,
            reason=str(activity.detail.get("reason") or ""),
            at=activity.created_at,
            undone=activity.undone_at is not None,
        )


def _in_words(
    activity: Activity, user: User | None, people: Mapping[int, str], moment: datetime, timezone: str
) -> tuple[str, str, str]:
    """What was done, with what, and what was there before."""
    kind, detail = activity.kind, activity.detail
    if user is None and kind in _BY_ITSELF:
        return _BY_ITSELF[kind], "", ""
    if kind == "assigned":
        to = detail.get("after")
        return (
            ("took it", "", "")
            if user and to == user.id
            else ("gave it to", people.get(to or 0, "somebody"), "")
        )
    if kind == "snoozed":
        until = datetime.fromisoformat(str(detail["until"]))
        return "put it off until", say_time(until, moment, timezone), ""
    if kind == "corrected":
        return _corrected(detail, activity.before)
    if kind == "dismissed":
        return f"kept the {detail.get('field')} against a newer brief", "", ""
    if kind in _REGROUPED:
        return _REGROUPED[kind], f"number {detail.get('other')}", ""
    return _SAID.get(kind, kind), "", ""


def _corrected(detail: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[str, str, str]:
    name = str(detail.get("field"))
    if name in ("priority", "category"):
        return f"set the {name} to", str(detail.get("after", "")), str(before.get(name) or "")
    return f"rewrote the {name}", "", ""
