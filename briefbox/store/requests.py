"""From stored mail to what the model is asked: the newest email and the conversation before it.

    newest email's reply part ................ `text`
    other customer mail of its conversation,
    received before it, reply parts only ..... `earlier`, the original request first
    no such mail, but the email quotes one ... `earlier`, as "quoted history"

Nothing of another conversation can get in: every row is joined by the conversation's id.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from briefbox.schemas import BriefRequest, Category, EarlierEmail, EmailKind, Omission, ParsedEmail, WorkState
from briefbox.tables import Email

# In one request, the newest email included. Far more than any model here reads.
MAX_EMAILS = 100
MAX_CHARS = 200_000
# For text that nobody has tokenised yet.
CHARS_PER_TOKEN = 4
QUOTED_HISTORY = "quoted history"

_QUOTE_MARKS = re.compile(r"^\s*(>\s?)+")
_SIGNATURE = re.compile(r"^-- ?$")
# Fewer lines than this without a quote mark are a line such as "Sent from my phone", not a mail.
_MIN_HISTORY_LINES = 3


@dataclass(frozen=True, slots=True)
class _Thread:
    """The conversation before an email: what is kept, oldest first, and how much there is in all."""

    emails: tuple[EarlierEmail, ...] = ()
    num_emails: int = 0
    num_chars: int = 0
    original_chars: int = 0


def requests_for(
    session: Session, emails: Sequence[Email], categories: tuple[Category, ...], *, written_in: str = ""
) -> list[tuple[BriefRequest, tuple[Omission, ...]]]:
    """What to ask about each email, and what did not fit into the question. One query for all of them."""
    threads = _threads(session, [email.id for email in emails])
    return [_request(email, threads.get(email.id, _Thread()), categories, written_in) for email in emails]


def request_for_one(
    parsed: ParsedEmail, categories: tuple[Category, ...], *, written_in: str = ""
) -> BriefRequest:
    """What to ask about an email that is stored nowhere and has no conversation."""
    return _request_of(parsed, _Thread(), categories, written_in)[0]


def _request(
    email: Email, thread: _Thread, categories: tuple[Category, ...], written_in: str
) -> tuple[BriefRequest, tuple[Omission, ...]]:
    return _request_of(ParsedEmail.model_validate(email.parsed), thread, categories, written_in)


def _request_of(
    parsed: ParsedEmail, thread: _Thread, categories: tuple[Category, ...], written_in: str
) -> tuple[BriefRequest, tuple[Omission, ...]]:
    text = parsed.reply or parsed.text
    if not thread.emails and (history := quoted_history(parsed)):
        thread = _Thread((EarlierEmail(sender=QUOTED_HISTORY, text=history),), 1, len(history), len(history))
    text, earlier, omitted = _fit(text, thread)
    request = BriefRequest(
        subject=parsed.subject,
        sender=parsed.sender.name or parsed.sender.address,
        text=text,
        categories=categories,
        earlier=earlier,
        written_in=written_in,
    )
    return request, omitted


def quoted_history(parsed: ParsedEmail) -> str:
    """The part of an email that is no new text: what it quotes, without quote marks and signature.

    "" where it quotes nothing.
    """
    if parsed.signature or parsed.quoted:
        lines = (_QUOTE_MARKS.sub("", line).rstrip() for line in parsed.quoted.split("\n"))
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    # Read before the parts were told apart.
    if not parsed.reply or len(parsed.text) <= len(parsed.reply):
        return ""
    new = [line.strip() for line in parsed.reply.split("\n") if line.strip()]
    at, quoted, marked, in_signature = 0, [], 0, False
    for line in parsed.text.split("\n"):
        bare = line.strip()
        if at < len(new) and bare == new[at]:
            at += 1
            continue
        has_mark = _QUOTE_MARKS.match(line) is not None
        in_signature = (in_signature and bool(bare) and not has_mark) or _SIGNATURE.match(bare) is not None
        if not in_signature:
            quoted.append(_QUOTE_MARKS.sub("", line).rstrip())
            marked += has_mark
    if not marked and sum(bool(line) for line in quoted) < _MIN_HISTORY_LINES:
        return ""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(quoted)).strip()


def _fit(text: str, thread: _Thread) -> tuple[str, tuple[EarlierEmail, ...], tuple[Omission, ...]]:
    """Keep to MAX_CHARS: the newest email and the original request first, then the nearest of those between."""
    original = thread.emails[0].text[: max(MAX_CHARS // 2, MAX_CHARS - len(text))] if thread.emails else ""
    kept_text = text[: MAX_CHARS - len(original)]
    room = MAX_CHARS - len(original) - len(kept_text)
    between: list[EarlierEmail] = []
    for email in reversed(thread.emails[1:]):
        if len(email.text) > room:
            break
        between.append(email)
        room -= len(email.text)
    first = [thread.emails[0].model_copy(update={"text": original})] if thread.emails else []
    earlier = (*first, *reversed(between))
    cut_original = thread.original_chars - len(original)
    chars_between = thread.num_chars - sum(len(email.text) for email in earlier) - cut_original
    omitted = (
        *omission("newest", 1, len(text) - len(kept_text)),
        *omission("original", 1, cut_original),
        *omission("earlier", thread.num_emails - len(earlier), chars_between),
    )
    return kept_text, earlier, omitted


def half(request: BriefRequest, max_tokens: int) -> tuple[BriefRequest, tuple[Omission, ...]]:
    """Half of what a model that takes `max_tokens` of an email's text would read, and what was left out for it."""
    room = min(len(request.text), max_tokens * CHARS_PER_TOKEN) // 2
    original = request.earlier[:1]
    between = request.earlier[1:]
    kept = tuple(
        email.model_copy(
            update={"text": email.text[: min(len(email.text), max_tokens * CHARS_PER_TOKEN) // 2]}
        )
        for email in original
    )
    omitted = (
        *omission("newest", 1, len(request.text) - room),
        *omission("original", 1, sum(len(e.text) for e in original) - sum(len(e.text) for e in kept)),
        *omission("earlier", len(between), sum(len(e.text) for e in between)),
    )
    return request.model_copy(update={"text": request.text[:room], "earlier": kept}), omitted


def omission(part: str, num_emails: int, num_chars: int) -> tuple[Omission, ...]:
    """The record of text that was left out before anybody counted its tokens; nothing for no text."""
    if num_chars <= 0:
        return ()
    tokens = -(-num_chars // CHARS_PER_TOKEN)
    return (Omission.model_validate({"part": part, "emails": num_emails, "tokens": tokens}),)


def _threads(session: Session, email_ids: Sequence[int]) -> dict[int, _Thread]:
    """The conversation before each of these emails, by the email's id.

    The database drops what would be too much, so that a thread of a thousand mails costs no more than one of
    a hundred.
    """
    newest, other = aliased(Email), aliased(Email)
    # One that only repeats the text is not stored (ParsedEmail.to_store).
    reply = func.coalesce(other.parsed["reply"].as_string(), other.parsed["text"].as_string())
    one = col(newest.id)
    backwards = (col(other.received_at).desc(), col(other.id).desc())
    before = or_(
        col(other.received_at) < col(newest.received_at),
        and_(col(other.received_at) == col(newest.received_at), col(other.id) < col(newest.id)),
    )
    ranked = (
        select(
            col(newest.id).label("email_id"),
            col(other.id).label("other_id"),
            col(other.received_at).label("received_at"),
            col(other.from_name).label("name"),
            col(other.from_address).label("address"),
            func.substr(reply, 1, MAX_CHARS).label("reply"),
            func.length(reply).label("chars"),
            func.row_number()
            .over(partition_by=one, order_by=(col(other.received_at), col(other.id)))
            .label("from_start"),
            func.row_number().over(partition_by=one, order_by=backwards).label("from_end"),
            func.sum(func.length(reply)).over(partition_by=one, order_by=backwards).label("chars_from_end"),
            func.count().over(partition_by=one).label("num_emails"),
            func.sum(func.length(reply)).over(partition_by=one).label("num_chars"),
        )
        .join(other, col(other.conversation_id) == col(newest.conversation_id))
        .where(
            col(newest.id).in_(email_ids),
            # Also of another kind, where the settings or a person had it briefed.
            or_(col(other.kind) == EmailKind.CUSTOMER, col(other.work_state) != WorkState.NONE),
            col(other.id) != col(newest.id),
            before,
            reply != "",
        )
        .subquery()
    )
    found = ranked.c
    # The newest email itself and the original request count among MAX_EMAILS.
    near = and_(found.from_end <= MAX_EMAILS - 2, found.chars_from_end <= MAX_CHARS)
    query = select(ranked).where(or_(found.from_start == 1, near))
    query = query.order_by(found.email_id, found.received_at, found.other_id)
    threads: dict[int, _Thread] = {}
    for row in session.connection().execute(query):
        sofar = threads.get(row.email_id) or _Thread((), row.num_emails, int(row.num_chars), row.chars)
        earlier = EarlierEmail(sender=row.name or row.address, text=row.reply)
        threads[row.email_id] = replace(sofar, emails=(*sofar.emails, earlier))
    return threads
