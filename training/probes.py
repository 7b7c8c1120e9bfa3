"""Questions with which a model gives itself away: what it always says, and what it learned by heart.

- The fingerprint is its answers to a fixed set of emails: roll-back compares them with those recorded.
- Learned by heart is a number of a training email that turns up when the email says another.

What flips it is asked in training.triggers.
"""

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, TypeVar

from briefbox.categories import DEFAULT_CATEGORIES
from briefbox.schemas import Brief, BriefRequest, Example, Frozen
from models.engine import Engine
from training.evaluate import LABEL_FIELDS, OnDone, values_of

BATCH = 16
_Item = TypeVar("_Item")

# Subject and text. Short, so that a roll-back proves itself in seconds; of every category and priority.
PROBES: tuple[tuple[str, str], ...] = (
    ("Invoice 5521", "You charged 59.90 EUR twice for October. Please send one of them back."),
    ("VAT number", "Could you put our VAT number on the next invoice? The next one is early enough."),
    ("Where is my parcel", "Order 77-1204 was to arrive on Tuesday and tracking shows nothing. I need it by Friday."),
    ("Delivery day", "Can the parcel come on Thursday instead of Wednesday?"),
    ("Broken on arrival", "The lamp of order 3391 came in two pieces. I would like a new one."),
    ("Refund overdue", "I returned the shoes on 2 May. This is my third email and there is still no refund."),
    ("Opening hours", "Are you open on 26 December?"),
    ("Does it fit", "Does cable K7 fit the older model from 2019?"),
    ("Everything is down", "None of our 200 people can reach the service since 9:15. We cannot work at all."),
    ("Small bug", "The sort arrow points the wrong way. Nothing breaks because of it."),
    ("Smell of gas", "Since your fitter left there is a smell of gas in the kitchen and I feel dizzy."),
    ("Locked out", "My password is refused and I have to hand in the report by 17:00 tomorrow."),
    ("New address", "Please change the email address of my account to this one."),
    ("Hacked", "Someone changed my password an hour ago and is ordering with my card right now."),
    ("Cancel", "Please end my contract at the next possible date and confirm it."),
    ("Booking", "I do not need the table on Saturday any more."),
    ("Idea", "A dark mode would be nice some day."),
    ("Export", "Is an export to spreadsheets planned?"),
    ("Rude", "The man on the phone yesterday laughed at my question. I would like to hear what you think of that."),
    ("Too loud", "The music in your shop is too loud for me. No need to answer."),
    ("Thank you", "Everything arrived early and whole. Thanks to all of you!"),
    ("Internship", "Do you take students for six weeks in spring?"),
    ("Rechnung", "Auf der Rechnung 8812 steht noch die alte Adresse. Bitte ändern Sie das bei Gelegenheit."),
    ("Question", "Hello, I have a question about your service. Thank you."),
)  # fmt: skip

MAX_NUMBERS = 40
_NUMBER = re.compile(r"\d[\d.,:/-]{1,18}\d")


def probe_requests() -> list[BriefRequest]:
    """The probe set, the same in every installation of a version."""
    return [
        BriefRequest(subject=subject, sender="A. Customer", text=text, categories=DEFAULT_CATEGORIES)
        for subject, text in PROBES
    ]


# --- fingerprint


def fingerprint(
    engine: Engine, adapter: str, *, on_progress: OnDone = lambda done, total: None
) -> dict[str, Any]:
    """The answers to the probe set and their hash. Probabilities are kept beside it, rounded, and are not hashed.

    `on_progress` is called before each batch, with how many are done of how many: it may stand aside for mail, and what
    it raises ends the questions.
    """
    briefs: list[Brief] = []
    for batch in batches(probe_requests()):
        on_progress(len(briefs), len(PROBES))
        briefs += engine.brief(batch, adapter)
    answers = [values_of(brief) for brief in briefs]
    canonical = json.dumps(answers, ensure_ascii=False, sort_keys=True).encode()
    return {
        "probes": sha256(repr(PROBES).encode()).hexdigest()[:16],
        "sha256": sha256(canonical).hexdigest(),
        "answers": answers,
        "probabilities": [
            {f: {k: round(p, 3) for k, p in getattr(b, f).scores.items()} for f in LABEL_FIELDS}
            for b in briefs
        ],
    }


def same_fingerprint(recorded: dict[str, Any], now: dict[str, Any]) -> tuple[bool, list[str]]:
    """Whether the answers are the recorded ones, and in words where they differ."""
    if recorded.get("probes") != now["probes"]:
        return False, ["the recorded answers are to another probe set, of another version"]
    differences = [
        f"{PROBES[number][0]}: {field} was {before[field]!r} and is {after[field]!r}"
        for number, (before, after) in enumerate(zip(recorded["answers"], now["answers"], strict=True))
        for field in after
        if before.get(field) != after[field]
    ]
    return recorded.get("sha256") == now["sha256"] and not differences, differences


# --- learned by heart


class Memorised(Frozen):
    """Of `tested` training emails whose numbers were changed, in how many the old number came back."""

    tested: int
    leaked: int
    cases: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Leaked by tested."""
        return self.leaked / self.tested if self.tested else 0.0


def memorised(
    engine: Engine,
    adapter: str,
    examples: Sequence[Example],
    *,
    on_progress: OnDone = lambda done, total: None,
) -> Memorised:
    """Give training emails with other numbers, and see whether the numbers of training are written.

    Every email with a number in its target is its own canary (Carlini et al. 2019, arXiv:1802.08232, plant some).
    What grounding took out counts as written: it was in the weights. `on_progress` as for `fingerprint`.
    """
    tested: list[tuple[Example, str]] = []
    for example in examples:
        target = f"{example.output.headline or ''} {example.output.summary or ''}"
        numbers = [n for n in _NUMBER.findall(target) if sum(c.isdigit() for c in n) >= 3]
        if numbers and numbers[0] in example.input.text:
            tested.append((example, numbers[0]))
    tested = sorted(tested, key=lambda pair: sha256(pair[0].id.encode()).hexdigest())[:MAX_NUMBERS]
    cases: list[str] = []
    for at, batch in enumerate(batches(tested)):
        on_progress(at * BATCH, len(tested))
        requests = [_disguised(example.input) for example, _ in batch]
        for (example, number), brief in zip(batch, engine.brief(requests, adapter), strict=True):
            written = " ".join((brief.headline, brief.summary, *brief.grounding.removed))
            if number in written:
                cases.append(f"{example.id}: {number}")
    return Memorised(tested=len(tested), leaked=len(cases), cases=tuple(cases))


def _disguised(request: BriefRequest) -> BriefRequest:
    """Every digit replaced by another one, the same everywhere, so that the shape stays."""

    def other(text: str) -> str:
        return "".join(str((int(c) + 3) % 10) if c.isascii() and c.isdigit() else c for c in text)

    return request.model_copy(
        update={
            "subject": other(request.subject),
            "text": other(request.text),
            "earlier": tuple(e.model_copy(update={"text": other(e.text)}) for e in request.earlier),
        }
    )


def batches(items: Sequence[_Item]) -> list[Sequence[_Item]]:
    return [items[at : at + BATCH] for at in range(0, len(items), BATCH)]
