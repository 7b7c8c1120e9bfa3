"""Full text by the database's own index: which emails hold what somebody asks for, in the mail or in its brief.

An email's entry is written once, since mail never changes; that of its brief is written anew when the brief or an
agent changes it. Whoever stores either leaves a note in the same transaction, and a chore of the desk writes the
entries soon after. docs/decisions/search.md has the reasons.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import bindparam, text
from sqlalchemy import select as sql_select
from sqlmodel import Session, col, delete, func, select

from briefbox.db import Database
from briefbox.store import rows
from briefbox.store.search_words import Question, Term, can_begin, words
from briefbox.tables import Brief, Conversation, Email, SearchPending

MAX_TEXT = 100_000
# Any constant will do: one process writes entries at a time, so that an older state never replaces a newer one.
_INDEX_LOCK = 7_220_416

# On PostgreSQL each entry also holds the numbers of two ranges of emails that it is in: an index of words has no
# order, and with these it is asked for the newest emails first, a range at a time.
_SMALL, _LARGE = 12, 16
_FIRST_BATCH, _LATER_BATCH = 100, 1_600
# SQLite is asked for all matches where they are no more than this...
MAX_RARE = 2_000
# ...and otherwise of one email after the other, no more than this for one page.
MAX_SINGLY, _SINGLY = 300, 150
# Words that a beginning stands for, and those among which they are looked for.
MAX_ENDS, _MAX_RANGE = 64, 20_000
# Positions are counted no further by PostgreSQL.
_LAST_POSITION, _MAX_POSITIONS = 16_383, 255
# Between two fields, so that no phrase reaches from one into the next.
_GAP = 8
_COLUMNS = {"email_search": ("subject", "sender", "body"), "brief_search": ("headline", "summary")}


# --- what is to be written


def note(session: Session, email_ids: Iterable[int]) -> None:
    """These emails, or their briefs, are new or changed: their entries are written soon after this transaction."""
    rows.insert(session, SearchPending, [{"email_id": id_} for id_ in email_ids])


def note_conversation(session: Session, conversation: Conversation) -> None:
    """What a conversation shows was changed by an agent: the entry of the email whose brief it is."""
    if conversation.brief_id is not None:
        query = select(Brief.email_id).where(Brief.id == conversation.brief_id)
    else:
        query = (
            select(Email.id)
            .where(Email.conversation_id == conversation.id)
            .order_by(col(Email.received_at).desc(), col(Email.id).desc())
            .limit(1)
        )
    note(session, session.exec(query).all())


def index_pending(database: Database, limit: int = 200) -> bool:
    """Write the entries that are due. Returns whether more wait. Several processes may ask at once."""
    with database.read() as session:
        if session.exec(select(SearchPending.id).limit(1)).first() is None:
            return False
    with database.write() as session:
        if not _our_turn(session):
            return False
        query = select(SearchPending.id, SearchPending.email_id).order_by(col(SearchPending.id)).limit(limit)
        pending = session.exec(query).all()
        write_entries(session, sorted({email_id for _, email_id in pending}))
        session.exec(delete(SearchPending).where(col(SearchPending.id).in_([id_ for id_, _ in pending])))
    return len(pending) == limit


def _our_turn(session: Session) -> bool:
    if not _is_postgres(session):
        return True  # nobody else writes while we do
    asked = session.connection().execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _INDEX_LOCK})
    return bool(asked.scalar_one())


def write_entries(session: Session, email_ids: Sequence[int]) -> None:
    """Write the entries of these emails and of what their briefs say now."""
    if not email_ids:
        return
    mails = {id_: fields for id_, fields in _mails(session, email_ids) if fields is not None}
    briefs = _briefs(session, email_ids)
    if not _is_postgres(session):
        forgotten = [(id_,) for id_ in email_ids]
        session.connection().exec_driver_sql("DELETE FROM brief_search WHERE rowid = ?", forgotten)
    insert_entries(session, "email_search", mails)
    insert_entries(session, "brief_search", briefs)
    insert_words(
        session,
        (word for fields in (*mails.values(), *briefs.values()) for field in fields for word in field),
    )


Fields = tuple[list[str], ...]


def _mails(session: Session, email_ids: Sequence[int]) -> Iterable[tuple[int, Fields | None]]:
    """The words of mails that have no entry yet."""
    entries = session.connection().execute(
        text(f"SELECT {_key(session)} FROM email_search WHERE {_key(session)} IN :ids").bindparams(  # noqa: S608
            bindparam("ids", email_ids, expanding=True)
        )
    )
    new = set(email_ids) - set(entries.scalars())
    c = rows.table_of(Email).c
    query = sql_select(c.id, c.subject, c.from_name, c.from_address, c.parsed).where(c.id.in_(new))
    found = session.connection().execute(query.order_by(c.id)).all() if new else ()
    for id_, subject, name, address, parsed in found:
        body = str(parsed.get("text", ""))[:MAX_TEXT]
        yield id_, (words(subject), words(f"{name} {address}"), words(body))


def _briefs(session: Session, email_ids: Sequence[int]) -> dict[int, Fields]:
    """The words of what briefs say, after the agents where a conversation shows that brief."""
    email, brief, conversation = (rows.table_of(model) for model in (Email, Brief, Conversation))
    about = (email.c.id, brief.c.id, brief.c.headline, brief.c.summary)
    now_shown = (conversation.c.brief_id, conversation.c.headline, conversation.c.summary)
    query = (
        sql_select(*about, *now_shown)
        .select_from(email)
        .outerjoin(brief, (brief.c.email_id == email.c.id) & brief.c.shadow.is_(False))
        .outerjoin(conversation, conversation.c.id == email.c.conversation_id)
        .where(email.c.id.in_(email_ids))
        .order_by(email.c.id, brief.c.id)
    )
    shown: dict[int, Fields] = {}
    for row in session.connection().execute(query):
        email_id, brief_id, headline, summary, shown_id, shown_headline, shown_summary = row
        if brief_id == shown_id:  # both are None where agents wrote before any brief was made
            headline, summary = shown_headline, shown_summary
        shown[email_id] = (words(headline or ""), words(summary or ""))
    return {id_: fields for id_, fields in shown.items() if any(fields)}


def insert_entries(session: Session, table: str, entries: dict[int, Fields]) -> None:
    """Entries by email id, for `email_search` or `brief_search`; there are none of these emails (of briefs, on PostgreSQL, there may be)."""
    if not entries:
        return
    if not _is_postgres(session):
        columns, marks = _COLUMNS[table], ", ".join("?" * len(_COLUMNS[table]))
        session.connection().exec_driver_sql(
            f"INSERT INTO {table} (rowid, {', '.join(columns)}) VALUES (?, {marks})",  # noqa: S608 - our own names
            [(id_, *map(" ".join, fields)) for id_, fields in entries.items()],
        )
        return
    statement = text(
        f"INSERT INTO {table} (email_id, document)"  # noqa: S608 - our own names
        " SELECT one.id, CAST(one.document AS tsvector)"
        " FROM unnest(CAST(:ids AS integer[]), CAST(:documents AS text[])) AS one (id, document)"
        " ON CONFLICT (email_id) DO UPDATE SET document = excluded.document"
    )
    documents = [vector(id_, fields) for id_, fields in entries.items()]
    session.connection().execute(statement, {"ids": list(entries), "documents": documents})


def insert_words(session: Session, used: Iterable[str]) -> None:
    """Remember words, so that they are found by their beginnings."""
    new = sorted({word for word in used if can_begin(word)})
    if not new:
        return
    if _is_postgres(session):
        statement = "INSERT INTO search_words SELECT unnest(CAST(:words AS text[])) ON CONFLICT DO NOTHING"
        session.connection().execute(text(statement), {"words": new})
    else:
        statement = "INSERT OR IGNORE INTO search_words (word) VALUES (?)"
        session.connection().exec_driver_sql(statement, [(word,) for word in new])


def vector(email_id: int, fields: Fields) -> str:
    """A tsvector as PostgreSQL reads it: our own words, since its parser would cut them in its own way."""
    positions: dict[str, list[int]] = {}
    at = 0
    for field in fields:
        for word in field:
            at += 1
            if len(known := positions.setdefault(word, [])) < _MAX_POSITIONS:
                known.append(min(at, _LAST_POSITION))
        at += _GAP
    parts = [f"'{word}':{','.join(map(str, known))}" for word, known in positions.items()]
    return " ".join([*parts, f"'~s{email_id >> _SMALL}'", f"'~l{email_id >> _LARGE}'"])


# --- what is found


def looked_up(session: Session, question: Question) -> Question:
    """The same question with the words that a beginning may be: the MAX_ENDS shortest ones.

    The database's own search by beginnings first collects all that any such word finds, a third of a second among a
    million mails; words are found one mail after the other.
    """
    return Question(tuple(_with_ends(session, term) for term in question.terms))


def _with_ends(session: Session, term: Term) -> Term:
    last = term.words[-1]
    if not term.beginning or not can_begin(last):
        return term
    values = {"first": last, "last": last + chr(0x10FFFF), "range": _MAX_RANGE, "limit": MAX_ENDS}
    ends = session.connection().execute(_ENDS, values).scalars()
    return Term(term.words, ends=tuple(dict.fromkeys((last, *ends))))


_ENDS = text("""
    SELECT word FROM (SELECT word FROM search_words WHERE word >= :first AND word < :last ORDER BY word LIMIT :range) AS words
    ORDER BY length(word), word LIMIT :limit
""")


def last_email(session: Session) -> int:
    """The newest email's id; 0 where there is none."""
    return session.exec(select(func.max(Email.id))).one() or 0


def find(
    session: Session, question: Question, below: int, *, among: set[int] | None = None
) -> Iterator[tuple[list[int], int]]:
    """Matching emails below an id, newest first, in batches that grow: their ids, and down to where that is all.

    `among`: of these only. Whoever has enough stops.
    """
    if not question.terms or below <= 0:
        yield [], 0
    elif among is not None:
        yield from _among(session, question, below, among)
    elif _is_postgres(session):
        yield from _ranges(session, question, below)
    else:
        yield from _stream(session, question, below)


def _among(
    session: Session, question: Question, below: int, among: set[int]
) -> Iterator[tuple[list[int], int]]:
    ids = sorted((id_ for id_ in among if id_ < below), reverse=True)
    if not ids:
        yield [], 0
    elif _is_postgres(session):
        yield sorted(matching(session, question, ids), reverse=True), 0
    elif (rare := _all_if_rare(session, question)) is not None:
        yield [id_ for id_ in ids if id_ in rare], 0
    else:
        for first in range(0, min(len(ids), MAX_SINGLY), _SINGLY):
            some = ids[first : first + _SINGLY]
            last = first + _SINGLY >= len(ids)
            yield sorted(matching(session, question, some), reverse=True), 0 if last else some[-1]


def _all_if_rare(session: Session, question: Question) -> set[int] | None:
    """All matches where there are few, which is quicker than asking of one email after the other."""
    found: set[int] = set()
    for table in _COLUMNS:
        statement = f"SELECT rowid FROM {table} WHERE {table} MATCH ? LIMIT ?"  # noqa: S608
        ids = session.connection().exec_driver_sql(statement, (_match(question), MAX_RARE)).scalars().all()
        if len(ids) == MAX_RARE:
            return None
        found.update(ids)
    return found


def _stream(session: Session, question: Question, below: int) -> Iterator[tuple[list[int], int]]:
    """SQLite finds them in this order, one after the other."""
    streams = [
        session.connection().exec_driver_sql(
            f"SELECT rowid FROM {table} WHERE {table} MATCH ? AND rowid < ? ORDER BY rowid DESC",  # noqa: S608
            (_match(question), below),
        )
        for table in _COLUMNS
    ]
    try:
        batch: list[int] = []
        size, last = _FIRST_BATCH, below
        for id_ in heapq.merge(*(stream.scalars() for stream in streams), reverse=True):
            if id_ != last:
                batch.append(id_)
                last = id_
            if len(batch) >= size:
                yield batch, id_
                batch, size = [], size * 4
        yield batch, 0
    finally:
        for stream in streams:
            stream.close()


def _ranges(session: Session, question: Question, below: int) -> Iterator[tuple[list[int], int]]:
    """PostgreSQL is asked for a range of emails after the other, each longer than the one before."""
    step = 0
    while below > 0:
        if step == 0:
            lowest = highest = (below - 1) >> _SMALL
            floor, size = lowest << _SMALL, _FIRST_BATCH
            ranges = [f"'~s{lowest}'"]
        else:  # then 1, 4, 16... large ones
            highest = (below - 1) >> _LARGE
            lowest = max(0, highest - 4 ** min(step - 1, 3) + 1)
            floor, size = lowest << _LARGE, _LATER_BATCH
            ranges = [f"'~l{number}'" for number in range(lowest, highest + 1)]
        query = f"{_tsquery(question)} & ({' | '.join(ranges)})"
        values = {"query": query, "below": below, "floor": floor, "limit": size}
        batch = list(session.connection().execute(_IN_RANGES, values).scalars())
        below = batch[-1] if len(batch) == size else floor
        step += 1
        yield batch, below


# Materialized, so that the planner does not read all emails backwards in the hope of a word.
_IN_RANGES = text("""
    WITH found AS MATERIALIZED (
        SELECT email_id FROM email_search WHERE document @@ CAST(:query AS tsquery)
        UNION
        SELECT email_id FROM brief_search WHERE document @@ CAST(:query AS tsquery)
    )
    SELECT email_id FROM found WHERE email_id >= :floor AND email_id < :below ORDER BY email_id DESC LIMIT :limit
""")


def matching(session: Session, question: Question, email_ids: Sequence[int]) -> set[int]:
    """Which of these emails match."""
    if not question.terms or not email_ids:
        return set()
    sqlite = not _is_postgres(session)
    test = "{0} MATCH :query" if sqlite else "document @@ CAST(:query AS tsquery)"
    query = _match(question) if sqlite else _tsquery(question)
    found: set[int] = set()
    key = _key(session)
    for table in _COLUMNS:
        rest = [id_ for id_ in email_ids if id_ not in found]
        statement = text(f"SELECT {key} FROM {table} WHERE {key} IN :ids AND {test.format(table)}")  # noqa: S608
        statement = statement.bindparams(bindparam("ids", rest, expanding=True), query=query)
        found.update(session.connection().execute(statement).scalars())
    return found


def _is_postgres(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def _key(session: Session) -> str:
    return "email_id" if _is_postgres(session) else "rowid"


# Words are letters and digits only (search_words.py), so that nothing in them ends a quotation.


def _match(question: Question) -> str:
    def one(term: Term) -> str:
        if term.ends:
            return f"({' OR '.join(one(Term((*term.words[:-1], end))) for end in term.ends)})"
        return f'"{" ".join(term.words)}"{" *" if term.beginning else ""}'

    return " AND ".join(map(one, question.terms))


def _tsquery(question: Question) -> str:
    def one(term: Term) -> str:
        *first, last = [f"'{word}'" for word in term.words]
        if term.ends:
            ends = [f"'{end}'" for end in term.ends]
            last = f"({' | '.join(ends)})"
        return f"({' <-> '.join([*first, last])}{':*' if term.beginning else ''})"

    return " & ".join(map(one, question.terms))
