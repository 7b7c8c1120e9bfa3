"""What agents said of briefs since the last run, by field and class, and how far two of them agree."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import union_all
from sqlmodel import Session, col, func, select

from briefbox.db import now
from briefbox.schemas import BRIEF_FIELDS, PRIORITIES
from briefbox.store import retraining
from briefbox.store.categories import merged_names
from briefbox.tables import Brief, Confirmation, Conversation, Correction

LABELS = ("priority", "category")
# How far back agreement looks, and at how many briefs at most.
AGREEMENT_DAYS = 90
MAX_JUDGED = 2000
# More are not looked at: the page would wait for them.
MAX_COUNTED = 20_000


@dataclass(frozen=True, slots=True)
class Judged:
    """One line: a field, or one class of a labelled field. Of finished conversations alone: those are learned from."""

    field: str
    label: str  # what agents ended with; "" for the whole of a text field
    corrected: int
    confirmed: int  # pressed "right as it is"
    finished: int  # finished as it was


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of the briefs that several agents judged, in how many they ended with the same."""

    field: str
    judged: int
    agreed: int


def since_last_run(session: Session) -> list[Judged]:
    """What the next run has to learn from beyond the last one's dataset, labels before texts.

    Of the newest MAX_COUNTED corrections and as many confirmations.
    """
    since = retraining.learned_until(session)
    rows: dict[tuple[str, str], Counter[str]] = {}
    names = merged_names(session)  # as the harvest will read them

    def count(field: str, label: str, kind: str, number: int) -> None:
        shown = names.get(label, label) if field == "category" else label if field in LABELS else ""
        rows.setdefault((field, shown), Counter())[kind] += number

    corrected, confirmed = _newest(Correction, since), _newest(Confirmation, since)
    done = Conversation.state == "done"
    given = (
        select(col(Correction.field), Correction.after, func.count())
        .where(col(Correction.id).in_(corrected), col(Correction.field).in_(LABELS), done)
        .join(Conversation, col(Correction.conversation_id) == col(Conversation.id))
    )
    for field, label, number in session.exec(given.group_by(col(Correction.field), col(Correction.after))):
        count(field, label, "corrected", number)
    texts = (
        select(col(Correction.field), func.count())
        .where(col(Correction.id).in_(corrected), col(Correction.field).not_in(LABELS), done)
        .join(Conversation, col(Correction.conversation_id) == col(Conversation.id))
    )
    for field, number in session.exec(texts.group_by(col(Correction.field))):
        count(field, "", "corrected", number)
    labels = (col(Brief.priority), col(Brief.category), col(Confirmation.strength))
    approved = (
        select(*labels, func.count())
        .select_from(Confirmation)
        .join(Brief, col(Confirmation.brief_id) == col(Brief.id))
        .join(Conversation, col(Confirmation.conversation_id) == col(Conversation.id))
        .where(col(Confirmation.id).in_(confirmed), done)
    )
    for priority, category, strength, number in session.exec(approved.group_by(*labels)):
        for field in BRIEF_FIELDS:
            count(field, priority if field == "priority" else category, strength, number)
    # Without those whose field was corrected on this brief: that counts there, and they are few.
    corrections = (
        select(Correction.brief_id, Correction.field)
        .where(col(Correction.undone_at).is_(None), col(Correction.brief_id).is_not(None))
        .distinct()
        .subquery()
    )
    both = approved.join(corrections, corrections.c.brief_id == col(Confirmation.brief_id))
    fields: Any = both.add_columns(corrections.c.field)
    for priority, category, strength, number, field in session.exec(
        fields.group_by(*labels, corrections.c.field)
    ):
        count(field, priority if field == "priority" else category, strength, -number)
    order = {name: n for n, name in enumerate((*LABELS, *BRIEF_FIELDS))}
    ranks = {name: n for n, name in enumerate(PRIORITIES)}
    return [
        Judged(field, label, counts["corrected"], counts["strong"], counts["weak"])
        for (field, label), counts in sorted(
            rows.items(), key=lambda row: (order[row[0][0]], ranks.get(row[0][1], 9), row[0][1])
        )
        if any(counts.values())
    ]


def _newest(table: type[Correction] | type[Confirmation], since: datetime | None) -> Any:
    query = select(table.id).where(col(table.undone_at).is_(None))
    if since is not None:
        query = query.where(col(table.created_at) > since)
    return query.order_by(col(table.created_at).desc()).limit(MAX_COUNTED)


def agreement(session: Session) -> list[Agreement]:
    """By labelled field, of the last AGREEMENT_DAYS: finishing a brief as it was is no judgement here."""
    start = now(session) - timedelta(days=AGREEMENT_DAYS)
    corrections = select(Correction.brief_id, Correction.user_id).where(
        col(Correction.created_at) > start,
        col(Correction.undone_at).is_(None),
        col(Correction.field).in_(LABELS),
        col(Correction.brief_id).is_not(None),
    )
    confirmations = select(Confirmation.brief_id, Confirmation.user_id).where(
        col(Confirmation.created_at) > start,
        col(Confirmation.undone_at).is_(None),
        Confirmation.strength == "strong",
    )
    both = union_all(corrections, confirmations).subquery()
    several = (
        select(both.c.brief_id)
        .group_by(both.c.brief_id)
        .having(func.count(func.distinct(both.c.user_id)) > 1)
        .order_by(both.c.brief_id.desc())
        .limit(MAX_JUDGED)
    )
    ids = list(session.exec(several))
    said: dict[tuple[int, str], dict[int, str]] = {}
    briefs = {brief.id: brief for brief in session.exec(select(Brief).where(col(Brief.id).in_(ids)))}
    confirmed = select(Confirmation).where(
        col(Confirmation.brief_id).in_(ids),
        col(Confirmation.undone_at).is_(None),
        Confirmation.strength == "strong",
    )
    given = select(Correction).where(
        col(Correction.brief_id).in_(ids),
        col(Correction.undone_at).is_(None),
        col(Correction.field).in_(LABELS),
    )
    corrected = list(session.exec(given.order_by(col(Correction.id))))
    for confirmation in session.exec(confirmed):
        for field in LABELS:
            # They approved what stood there then: what somebody had corrected before, or what the model said.
            before = [
                c.after
                for c in corrected
                if c.brief_id == confirmation.brief_id
                and c.field == field
                and c.created_at <= confirmation.created_at
            ]
            stood = before[-1] if before else str(getattr(briefs[confirmation.brief_id], field))
            said.setdefault((confirmation.brief_id, field), {})[confirmation.user_id] = stood
    for correction in corrected:
        said.setdefault((correction.brief_id or 0, correction.field), {})[correction.user_id] = (
            correction.after
        )
    found = []
    for field in LABELS:
        judged = [values for (_, of), values in said.items() if of == field and len(values) > 1]
        same = sum(len(set(values.values())) == 1 for values in judged)
        found.append(Agreement(field, len(judged), same))
    return found
