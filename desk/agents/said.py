"""What was done just now, in words, with the way to undo it."""

from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from briefbox.db import now
from briefbox.store import assignees
from briefbox.store.told import Told, told
from briefbox.tables import User
from desk.times import say_time


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence, and the activity that undoing takes back; None where there is nothing to."""

    text: str
    activity_id: int | None = None


def note(session: Session, user: User, activity_id: int, failed: int, timezone: str) -> Note | None:
    """What this person did. None where that is not theirs, or undone already."""
    found = told(session, user, activity_id) if activity_id else None
    problem = not_changed(failed)
    if found is None:
        return Note(problem) if problem else None
    text = " ".join(part for part in (in_words(session, found, user, timezone), problem) if part)
    return Note(text, found.activity_id)


def in_words(session: Session, done: Told, user: User, timezone: str) -> str:
    """The action as a sentence."""
    what = f"{done.number:,}" if done.number > 1 else f"“{done.headline or '(no subject)'}”"
    if done.kind == "done":
        return f"{done.number:,} done." if done.number > 1 else f"Done: {what}."
    if done.kind == "assigned":
        to = done.detail.get("after")
        name = "you" if to == user.id else next(iter(assignees.names(session, [to]).values()), "somebody")
        return f"{what} assigned to {name}."
    if done.kind == "snoozed":
        until = datetime.fromisoformat(str(done.detail["until"]))
        return f"{what} put off until {say_time(until, now(session), timezone)}."
    if done.kind == "corrected":
        field, after = done.detail.get("field"), done.detail.get("after")
        short = f"{field} {after}" if field in ("priority", "category") else f"new {field}"
        return f"{what}: {short}. It will be used in the next training."
    said = {
        "unassigned": "given back: nobody has it now"
        if done.number == 1
        else "given back: nobody has them now",
        "reopened": "back in the queue",
        "confirmed": "noted as right",
    }
    return f"{what} {said.get(done.kind, 'changed')}."


def not_changed(failed: int) -> str:
    """A sentence for those that could not be changed."""
    return (
        ""
        if not failed
        else f"{failed:,} could not be changed; open {'it' if failed == 1 else 'them'} to see why."
    )
