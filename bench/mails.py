"""The emails of the inference benches: the demo's, varied, or those of a JSONL file."""

import json
import random
import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from bench.common import samples
from briefbox.schemas import BriefRequest, Category

CATEGORIES = (
    Category(name="Billing", description="invoices, charges, refunds, payment methods"),
    Category(name="Delivery", description="shipping, tracking, late or lost parcels"),
    Category(name="Technical problem", description="errors, bugs, outages"),
    Category(name="Account", description="sign-in, password, profile, closing an account"),
    Category(name="Feedback", description="praise, complaints, suggestions"),
)


def varied_requests(number: int) -> list[BriefRequest]:
    """The demo's emails over and over with other figures, and cut or joined so that the lengths differ."""
    texts = [pair for raw in samples() if (pair := _plain(raw))[1].strip()]
    chance = random.Random(20261124)
    requests = []
    for place in range(number):
        subject, text = texts[place % len(texts)]
        sentences = re.split(r"(?<=[.!?])\s+", text.strip())
        kept = max(2, round(len(sentences) * chance.uniform(0.3, 1.0)))
        shown = " ".join(sentences[:kept])
        figures = re.compile(r"\d")
        shown = figures.sub(lambda _: str(chance.randint(0, 9)), shown)
        requests.append(_request(subject, shown))
    return requests


def requests_from(path: Path, number: int) -> list[BriefRequest]:
    """The first `number` rows of a JSONL file with `subject` and `body`."""

    def rows() -> Iterator[BriefRequest]:
        with path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                yield _request(row.get("subject") or "", row["body"])

    return [request for request, _ in zip(rows(), range(number), strict=False)]


def _request(subject: str, text: str) -> BriefRequest:
    return BriefRequest(subject=subject, sender="customer@example.org", text=text, categories=CATEGORIES)


def _plain(raw: bytes) -> tuple[str, str]:
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    body = message.get_body(preferencelist=("plain",))
    return str(message["Subject"] or ""), str(body.get_content()) if body else ""
