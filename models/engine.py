"""What writes briefs: the protocol, the fake that ships in the product, and the choice by setting.

Importing this reaches no deep-learning library; the real engine is imported when it is made.
"""

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from briefbox.errors import AdapterError, ModelError, OutOfMemoryError
from briefbox.schemas import AdapterCard, Brief, BriefField, BriefRequest, LabelScore, Provenance
from briefbox.settings import Settings, load_settings
from models.brief import Draft, finish
from models.doubt import check_thresholds, thresholds
from models.prompt import PROMPT_VERSION, allowed_labels
from models.registry import WEIGHTS_FILE, read_card
from models.text import compact, one_line, sentences


class Engine(Protocol):
    """Text in, brief out. One engine belongs to one thread."""

    @property
    def name(self) -> str:
        """Which engine it is, as stored with every brief."""
        ...

    @property
    def base_model(self) -> str:
        """The base model's name."""
        ...

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters that are resident, ready to be used by the next brief."""
        ...

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[Brief]:
        """One brief for each request, in the same order, written with a resident adapter; "" is the bare base.

        Raises AdapterError when the adapter is not resident, OutOfMemoryError (the caller tries again with
        fewer) or ModelError.
        """
        ...

    def load_adapter(self, path: Path, name: str = "", expected_sha256: str | None = None) -> str:
        """Make the adapter in `path` resident and return its name; one of the same name is replaced.

        Raises AdapterError, with everything as it was, when it is refused. A ServerAwayError says nothing about it.
        """
        ...

    def drop_adapter(self, name: str) -> None:
        """Let go of a resident adapter; nothing happens when there is none of this name."""
        ...

    def warm_up(self) -> None:
        """Do the slow first work (prompt cache, device kernels) before mail waits for it."""
        ...


def make_engine(settings: Settings) -> Engine:
    """The engine that BRIEFBOX_ENGINE names. Loading a model takes seconds.

    Raises ModelError when the base model, the device or the server cannot be used, and SettingsError when a
    threshold is set for something that does not exist.
    """
    check_thresholds(settings)
    if settings.engine == "fake":
        return FakeEngine(settings, seconds_per_email=settings.fake_engine_seconds)
    if settings.engine == "openai":
        from models.openai_engine import OpenAIEngine

        return OpenAIEngine(settings)
    from models.transformers_engine import TransformersEngine

    return TransformersEngine(settings)


HANG_SECONDS = 3600.0

# Words that give a fake brief its priority, most urgent first.
FAKE_PRIORITIES: dict[str, tuple[str, ...]] = {
    "urgent": ("urgent", "outage", "down", "asap", "immediately", "breach", "emergency", "hacked"),
    "high": ("refund", "cannot", "can't", "error", "broken", "deadline", "complaint", "failed"),
    "low": ("thanks", "thank you", "feedback", "suggestion", "fyi"),
}


class FakeEngine:
    """Deterministic briefs by keywords: for tests and dry runs, needs no weights."""

    name = "fake"
    base_model = "fake"

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        seconds_per_email: float = 0.0,
        fail_on: str = "",
        die_on: str = "",
        nan_on: str = "",
        break_on: str = "",
        hang_on: str = "",
        empty_on: str = "",
        most_at_once: int | None = None,
        most_chars: int | None = None,
    ) -> None:
        """The `..._on` are texts that make the engine misbehave when a request holds them.

        `fail_on` and `nan_on` raise ModelError, `break_on` an error that nobody foresaw, `die_on` kills the
        process, `hang_on` sleeps for an hour, `empty_on` writes nothing. A batch larger than `most_at_once`, or an
        email longer than `most_chars`, raises OutOfMemoryError.
        """
        self.settings = settings or load_settings()
        self._cards: dict[str, AdapterCard] = {}
        self.history: list[list[BriefRequest]] = []
        self.seconds_per_email = seconds_per_email
        self.fail_on, self.nan_on, self.break_on = fail_on, nan_on, break_on
        self.die_on, self.hang_on, self.empty_on = die_on, hang_on, empty_on
        self.most_at_once, self.most_chars = most_at_once, most_chars

    @property
    def adapters(self) -> tuple[str, ...]:
        """See Engine."""
        return tuple(self._cards)

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[Brief]:
        """See Engine."""
        if adapter and adapter not in self._cards:
            raise AdapterError(f"The adapter {adapter} is not resident in the fake engine; load it first.")
        self.history.append(list(requests))
        if self.most_at_once is not None and len(requests) > self.most_at_once:
            raise OutOfMemoryError(
                f"{len(requests)} emails do not fit; the fake engine takes {self.most_at_once}."
            )
        for request in requests:
            self._misbehave(request)
        time.sleep(self.seconds_per_email * len(requests))
        return [self._brief(request, adapter, len(requests)) for request in requests]

    def load_adapter(self, path: Path, name: str = "", expected_sha256: str | None = None) -> str:
        """See Engine. Checks the card and the sum, not the weights."""
        card = read_card(path)
        if expected_sha256 is not None and expected_sha256 != card.weights_sha256:
            raise AdapterError(
                f"The card of adapter {card.name} says sha256 {card.weights_sha256[:12]} for {WEIGHTS_FILE}, expected {expected_sha256[:12]}."
            )
        name = name or card.name
        self._cards[name] = card
        return name

    def drop_adapter(self, name: str) -> None:
        """See Engine."""
        self._cards.pop(name, None)

    def warm_up(self) -> None:
        """Nothing is slow here."""

    def _misbehave(self, request: BriefRequest) -> None:
        """Do what a text in this request was set to make the engine do."""
        text = f"{request.subject}\n{request.text}"
        if self.die_on and self.die_on in text:
            os._exit(9)
        if self.hang_on and self.hang_on in text:
            time.sleep(HANG_SECONDS)
        if self.most_chars is not None and len(text) > self.most_chars:
            raise OutOfMemoryError(
                f"{len(text)} characters do not fit; the fake engine takes {self.most_chars}."
            )
        if self.fail_on and self.fail_on in text:
            raise ModelError(f"The fake engine was told to fail on {self.fail_on!r}.")
        if self.nan_on and self.nan_on in text:
            raise ModelError("The model's numbers are not finite for this email.")
        if self.break_on and self.break_on in text:
            raise RuntimeError(f"the fake device broke on {self.break_on!r}")

    def _brief(self, request: BriefRequest, adapter: str, batch_size: int) -> Brief:
        text = f"{request.subject}\n{compact(request.text)}"
        found = sentences(request.text)
        empty = bool(self.empty_on) and self.empty_on in text
        draft = Draft(
            headline="" if empty else " ".join(request.subject.split()[:8]) or "".join(found[:1]),
            headline_ended=True,
            summary="" if empty else " ".join(found[:2]),
            summary_ended=True,
            priority=_score("priority", request, _fake_priority(text)),
            category=_score("category", request, _fake_category(text, request)),
            omitted=(),
            provenance=Provenance(
                engine=self.name,
                base_model=self.base_model,
                adapter=adapter,
                prompt_version=PROMPT_VERSION,
                tokens_in=len(text.split()),
                seconds=self.seconds_per_email,
                batch_size=batch_size,
                device="none",
            ),
        )
        return finish(draft, request, thresholds(self.settings, self._cards.get(adapter)))


def _fake_priority(text: str) -> str:
    for priority, words in FAKE_PRIORITIES.items():
        if any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in words):
            return priority
    return "normal"


def _fake_category(text: str, request: BriefRequest) -> str:
    """The category whose name and description share most words with the email; the first one if none does."""
    words = set(re.findall(r"\w{4,}", text.lower()))
    overlap = {
        one_line(category.name): len(
            words & set(re.findall(r"\w{4,}", f"{category.name} {category.description}".lower()))
        )
        for category in request.categories
    }
    labels = allowed_labels("category", request)
    return max(labels, key=lambda label: overlap.get(label, 0))


def _score(field: BriefField, request: BriefRequest, label: str) -> LabelScore:
    """Four fifths for the chosen label, the rest shared by the others."""
    labels = allowed_labels(field, request)
    others = len(labels) - 1
    chosen = 0.8 if others else 1.0
    scores = {name: chosen if name == label else (1 - chosen) / others for name in labels}
    return LabelScore(label=label, confidence=chosen, scores=scores)
