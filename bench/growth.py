"""Everything but the model: does it grow with the queue, with time, and what does it cost for each email?

    python -m bench.growth [--queued 1000,10000,100000] [--briefs 10000] [--postgres] [--models FOLDER]

With the fake engine, which takes no time: milliseconds for each email of claim, brief and store at growing queue
lengths; the process's memory over many briefs; and where the time outside the model goes, tokenising included.
"""

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlmodel import select

from bench.common import print_table
from bench.ingest import database
from bench.mails import varied_requests
from briefbox.db import Database, now
from briefbox.schemas import Address, LabelScore, ParsedEmail, Provenance
from briefbox.settings import Settings
from briefbox.store import processes, work
from briefbox.tables import Conversation, Email, Mailbox, RawEmail
from models.brief import Draft, finish
from models.doubt import thresholds
from models.engine import FakeEngine
from workers.gpu import BriefWorker

BATCH = 32


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--queued", default="1000,10000,100000", help="lengths of the queue")
    parser.add_argument("--briefs", type=int, default=10_000, help="briefs to watch the memory over")
    parser.add_argument("--postgres", action="store_true", help="the embedded PostgreSQL instead of SQLite")
    parser.add_argument("--models", type=Path, help="folder of the converted model (BRIEFBOX_MODELS_DIR)")
    arguments = parser.parse_args()
    store = "PostgreSQL" if arguments.postgres else "SQLite"
    with (
        tempfile.TemporaryDirectory(prefix="bench") as folder,
        database(Path(folder), postgres=arguments.postgres) as (db, settings),
    ):
        _growth(db, settings, [int(n) for n in arguments.queued.split(",")], store)
        _overhead(db, settings, arguments.models, store)
        _memory(db, settings, arguments.briefs, store)


def _growth(db: Database, settings: Settings, lengths: list[int], store: str) -> None:
    worker = _worker(db, settings)
    rows, first, filled = [], 0.0, 0
    for length in lengths:
        with db.read() as session:
            waiting = work.num_waiting(session)
        _fill(db, length - waiting, filled)
        filled += length - waiting
        times = []
        for _ in range(20):
            started = time.perf_counter()
            worker.step()
            times.append((time.perf_counter() - started) / BATCH * 1e3)
        each = statistics.median(times)
        first = first or each
        rows.append((f"{length:,}", f"{each:.2f}", f"{each / first:.2f}"))
    print_table(
        f"Claim, brief and store with {store}, batches of {BATCH}, median of 20",
        ("emails queued", "ms each", "ratio"),
        rows,
    )


def _memory(db: Database, settings: Settings, number: int, store: str) -> None:
    worker = _worker(db, settings)
    with db.read() as session:
        waiting = work.num_waiting(session)
    _fill(db, max(0, number + 2 * BATCH - waiting), 10_000_000)
    worker.step()
    rows, done, first = [], 0, _resident()
    rows.append((0, f"{first:.0f}"))
    step = max(number // 5, BATCH)
    while done < number:
        worker.engine.history.clear()  # type: ignore[attr-defined] # the fake remembers what it was asked
        done += worker.step() or number
        if done // step > (done - BATCH) // step:
            rows.append((done, f"{_resident():.0f}"))
    print_table(f"Memory of the worker with {store}, fake engine", ("briefs", "MiB resident"), rows)


def _overhead(db: Database, settings: Settings, models: Path | None, store: str) -> None:
    parts: dict[str, list[float]] = {"claim": [], "tokenise": [], "ground and compose": [], "store": []}
    tokenise = _tokeniser(settings, models)
    for _ in range(10):
        with _timing(parts["claim"]), db.write() as session:
            claim = work.claim(session, owner="bench", limit=BATCH, seconds=60, max_attempts=3)
        assert claim is not None
        varied = varied_requests(BATCH)
        asked = [
            email.request.model_copy(update={"text": one.text, "subject": one.subject})
            for email, one in zip(claim.emails, varied, strict=True)
        ]
        with _timing(parts["tokenise"]):
            for request in asked:
                tokenise(request)
        limits = thresholds(settings)
        with _timing(parts["ground and compose"]):
            briefs = [finish(_draft(request.text), request, limits) for request in asked]
        with _timing(parts["store"]), db.write() as session:
            for email, brief in zip(claim.emails, briefs, strict=True):
                assert work.finish(session, claim.token, email, brief)
    each = {name: statistics.median(times) / BATCH * 1e3 for name, times in parts.items()}
    each["in all"] = sum(each.values())
    print_table(
        f"Outside the model with {store}, batches of {BATCH}, median of 10",
        ("part", "ms each"),
        [(name, f"{ms:.2f}") for name, ms in each.items()],
    )


class _timing:
    """Adds the seconds of its block to a list."""

    def __init__(self, times: list[float]) -> None:
        self.times = times

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.times.append(time.perf_counter() - self.started)


def _tokeniser(settings: Settings, models: Path | None) -> Callable[[Any], object]:
    from transformers import AutoTokenizer

    from models.base import resolve_base_model
    from models.prompt import encode_prompt

    settings = settings.model_copy(update={"models_dir": models or settings.models_dir})
    tokenizer = AutoTokenizer.from_pretrained(resolve_base_model(settings).path, local_files_only=True)
    return lambda request: encode_prompt(tokenizer, request, settings.max_email_tokens)


def _draft(text: str) -> Draft:
    """What a model might write: sentences of the email, one with an invented number."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    label = LabelScore(label="normal", confidence=0.6, scores={"normal": 0.6, "high": 0.4})
    return Draft(
        headline=" ".join(text.split()[:8]),
        headline_ended=True,
        summary=f"{' '.join(sentences[:2])} The customer paid 987654.32 EUR.",
        summary_ended=True,
        priority=label,
        category=LabelScore(label="billing", confidence=0.6, scores={"billing": 0.6, "other": 0.4}),
        omitted=(),
        provenance=Provenance(engine="bench", base_model="bench", prompt_version="bench"),
    )


def _worker(db: Database, settings: Settings) -> BriefWorker:
    settings = settings.model_copy(update={"batch_size": BATCH})
    return BriefWorker(db, settings, FakeEngine(settings), processes.this_process("bench"))


def _fill(db: Database, number: int, start: int) -> None:
    """Emails that wait, each in a conversation of its own, written past the ORM."""
    with db.write() as session:
        mailbox = session.exec(select(Mailbox)).first()
        if mailbox is None:
            mailbox = Mailbox(
                name="bench", address="a@b", host="h", port=1, username="u", created_at=now(session)
            )
            session.add(mailbox)
            session.flush()
        mailbox_id = mailbox.id
    varied = varied_requests(200)
    for first in range(0, number, 2000):
        part = range(start + first, start + min(first + 2000, number))
        with db.write() as session:
            moment = now(session)
            raw = [{"id": n + 1, "sha256": f"{n:064}", "size": 1, "data": b"x"} for n in part]
            talks = [
                {
                    "id": n + 1, "mailbox_id": mailbox_id, "subject": "s", "customer_address": f"c{n}@example.org",
                    "waiting_since": moment, "opened_at": moment, "updated_at": moment, "num_emails": 1, "needs_human": [], "touched": [], "suggestion": {},
                }
                for n in part
            ]  # fmt: skip
            emails = [
                {
                    "id": n + 1, "mailbox_id": mailbox_id, "conversation_id": n + 1, "raw_id": n + 1, "sha256": f"{n:064}",
                    "subject": "s", "received_at": moment, "not_before": moment, "created_at": moment,
                    "parsed": _parsed(n, varied[n % 200].text),
                }
                for n in part
            ]  # fmt: skip
            for table, rows in ((RawEmail, raw), (Conversation, talks), (Email, emails)):
                session.bulk_insert_mappings(table, rows)  # type: ignore[arg-type]


def _parsed(number: int, text: str) -> dict[str, Any]:
    sender = Address(name=f"Customer {number}", address=f"c{number}@example.org")
    return ParsedEmail(subject=f"Question {number}", sender=sender, text=text, reply=text).model_dump(
        mode="json"
    )


def _resident() -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
