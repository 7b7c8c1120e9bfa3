"""Everything that one conversation's page shows, gathered in one reading."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from fastapi import Request
from fastapi.responses import Response
from sqlmodel import Session

from briefbox.db import now
from briefbox.schemas import PRIORITIES
from briefbox.store import actions, assignees, conversations, presence, work
from briefbox.store.sight import Sight
from briefbox.tables import Activity, Brief, Conversation, Mailbox, User
from desk.agents import brief_view, regroup, said
from desk.agents.came_from import CameFrom, beside
from desk.agents.fields import REASONS, Clash, field_views
from desk.agents.here import others
from desk.agents.rows import rows
from desk.agents.story import MailView, mail_view, story
from desk.context import Desk, page
from desk.live import stamp
from desk.times import local_input, say_time, snooze_choices

NOTES = {
    "corrected": "Saved. It will be used in the next training.",
    "unchanged": "That is what it says already; nothing was changed.",
    "confirmed": "Noted as right. It will be used in the next training.",
    "no-brief": "There is no brief yet that could be right.",
    "dismissed": "The suggestion is gone; what you have stays.",
    "reopened": "Back in the queue.",
    "noted": "Noted. Only agents see it.",
    "split": "This is a conversation of its own now. To undo that, merge it back.",
    "merged": "Merged. All mail of both stands here.",
    "unmerged": "It stands for itself again.",
    "briefed": "It counts as customer mail now; its brief follows.",
    "skipped": "Taken out of what is briefed.",
}
UNDOABLE = ("corrected", "confirmed", "dismissed", "reopened")


@dataclass(frozen=True, slots=True)
class Said:
    """What the page says on top: what was done or went wrong, and what was typed and could not be saved."""

    note: str = ""  # a key of NOTES
    did: int = 0  # an activity of the person
    status: int = 200
    problem: str = ""
    kept: Mapping[str, str] = field(default_factory=dict)  # by field, and "note"
    clash: Mapping[str, str] = field(default_factory=dict)  # of one field: field, value, reason


@dataclass(frozen=True, slots=True)
class Undo:
    """What the person can take back, and where that leads."""

    activity_id: int
    what: str
    back: str


NOTHING_SAID = Said()


def show(
    request: Request,
    desk: Desk,
    user: User,
    sight: Sight,
    conversation_id: int,
    origin: CameFrom,
    told: Said = NOTHING_SAID,
) -> Response:
    """The page."""
    with desk.database.read() as session:
        return page(
            request,
            "conversation.html",
            status=told.status,
            **_values(session, desk, user, sight, conversation_id, origin, told),
        )


def _values(
    session: Session,
    desk: Desk,
    user: User,
    sight: Sight,
    conversation_id: int,
    origin: CameFrom,
    told: Said,
) -> dict[str, Any]:
    moment = now(session)
    conversation = conversations.standing(session, conversation_id)
    brief = _brief(session, conversation)
    mails = [mail_view(email) for email in conversations.emails(session, conversation.id)]
    moved = conversation.id != conversation_id  # merged while the person was writing
    fields = field_views(session, conversation, brief, told.kept)
    before, after = beside(session, origin, conversation, sight)
    names = assignees.names(session, (conversation.assigned_to, conversation.done_by))
    return {
        **_top(session, desk, user, conversation, origin, told),
        # Two versions side by side say enough.
        "problem": "" if told.clash and not moved else told.problem,
        "clash": Clash(fields[told.clash["field"]], told.clash["value"], told.clash.get("reason", ""))
        if told.clash
        else None,
        "since": stamp(moment),
        "row": rows(session, [conversation])[0],
        "c": conversation,
        "brief": brief,
        "view": _view(session, desk, conversation, brief, mails),
        "mailbox": session.get(Mailbox, conversation.mailbox_id),
        "fields": fields,
        "confirmations": [
            (confirmation, by)
            for confirmation, by in conversations.confirmations(session, conversation.id)
            if confirmation.strength == "strong" and confirmation.brief_id == conversation.brief_id
        ],
        "names": names,
        "people": assignees.who_see(session, conversation.mailbox_id),
        "others": others(session, conversation.id, user),
        "spent": presence.time_spent(session, conversation.id),
        "story": story(session, conversation, mails, moment, desk.settings.timezone),
        "num_mails": len(mails),
        "places": {mail.email.id: place for place, mail in enumerate(mails)},
        "offered": regroup.offered(session, conversation),
        "merged_here": regroup.merged_here(session, conversation),
        "skip_kinds": regroup.KINDS,
        "priorities": PRIORITIES,
        "categories": work.active_categories(session),
        "reasons": REASONS,
        "limits": {**conversations.MAX_TEXT, "note": actions.MAX_NOTE},
        "idempotency_key": uuid4().hex,
        "snoozes": snooze_choices(moment, desk.settings.timezone),
        "earliest": local_input(moment, desk.settings.timezone),
        "snoozed_until": say_time(conversation.snoozed_until, moment, desk.settings.timezone)
        if conversation.snoozed_until
        else "",
        "origin": origin,
        "here": origin.to(conversation.id),
        "before": before,
        "after": after,
    }


def _top(
    session: Session, desk: Desk, user: User, conversation: Conversation, origin: CameFrom, told: Said
) -> dict[str, Any]:
    """What was done just now, and what can be taken back."""
    last = actions.last_undoable(session, user, conversation_id=conversation.id)
    undo = _undo(last, origin, conversation.id)
    note, note_undo = NOTES.get(told.note, ""), undo if told.note in UNDOABLE else None
    if told.did and (done := said.note(session, user, told.did, 0, desk.settings.timezone)) is not None:
        note, activity = done.text, session.get(Activity, done.activity_id) if done.activity_id else None
        note_undo = _undo(activity, origin, activity.conversation_id if activity else 0)
    return {
        "note": note,
        "note_undo": note_undo,
        "undo": undo,
        "kept_note": told.kept.get("note", ""),
    }


def _undo(activity: Activity | None, origin: CameFrom, conversation_id: int) -> Undo | None:
    if activity is None:
        return None
    what = (
        str(activity.detail.get("field", ""))
        if activity.kind in ("corrected", "dismissed")
        else activity.kind
    )
    return Undo(activity.id, what, origin.to(conversation_id))


def _brief(session: Session, conversation: Conversation) -> Brief | None:
    """The brief that stands in the conversation; never one of an adapter on trial."""
    brief = session.get(Brief, conversation.brief_id) if conversation.brief_id else None
    return None if brief is None or brief.shadow else brief


def _view(
    session: Session,
    desk: Desk,
    conversation: Conversation,
    brief: Brief | None,
    mails: Sequence[MailView],
) -> brief_view.BriefView | None:
    if brief is None:
        return None
    text = next((mail.text for mail in mails if mail.email.id == brief.email_id), "")
    return brief_view.view(session, desk.settings, conversation, brief, text)
