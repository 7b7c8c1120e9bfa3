"""What the training page shows of runs, adapters, judgements and datasets: rows as views, figures in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from sqlmodel import Session, col, select

from briefbox.settings import Settings
from briefbox.store import adapters
from briefbox.store.sight import Sight
from briefbox.tables import Adapter, Brief, Conversation, Dataset, Promotion, TrainingRun, User
from desk.access import may
from desk.insight.charts import Chart, loss_curve

# 95 % of a normal distribution.
Z = 1.96
# As training's checks have it, which the desk may not import: fewer of a label say nothing on their own.
MIN_CLASS = 8
MAX_CHANGES = 30
SPLITS = ("train", "validation", "test")
WHO = {"candidate": "this one", "champion": "in use then", "base": "bare base"}
# What an evaluation is summed up by here, of the many figures in the card.
FIGURES = (
    ("priority right", "labels", "priority", "accuracy"),
    ("priority, macro-F1", "labels", "priority", "macro_f1"),
    ("category right", "labels", "category", "accuracy"),
    ("category, macro-F1", "labels", "category", "macro_f1"),
    ("summary ROUGE-L", "texts", "summary", "rougeL"),
    ("headline ROUGE-L", "texts", "headline", "rougeL"),
)
SHARES = ("accuracy",)
STATES = {
    "candidate": "not in use",
    "champion": "in use",
    "shadow": "on trial",
    "retired": "was in use",
    "rejected": "rejected",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure, and the interval it lies in where that can be said."""

    text: str
    interval: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A test email on which this adapter says something else than the one in use."""

    field: str
    truth: str
    before: str
    after: str
    conversation_id: int | None  # None: it is not seen, or came from elsewhere
    subject: str

    @property
    def better(self) -> bool | None:
        """Right now, wrong now, or wrong in another way."""
        return True if self.after == self.truth else False if self.before == self.truth else None


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with its dataset and what came of it."""

    run: TrainingRun
    dataset: Dataset | None
    adapter: str
    minutes_left: int | None
    curve: Chart | None

    @property
    def is_open(self) -> bool:
        """Waiting or running."""
        return self.run.state in ("waiting", "running")


@dataclass(frozen=True, slots=True)
class AdapterView:
    """An adapter with its verdict as tables."""

    adapter: Adapter
    state: str
    decision: str
    sentence: str
    rule: str
    gain: str
    num_test: int
    checks: Sequence[dict[str, Any]]
    models: Sequence[str]
    figures: Sequence[tuple[str, Sequence[Cell]]]
    classes: Sequence[
        tuple[str, str, int, Sequence[str]]
    ]  # field, label, test emails, found of them by each model
    changes: Sequence[Change]
    may_promote: bool
    started_by_you: bool


@dataclass(frozen=True, slots=True)
class DatasetView:
    """A dataset version: how large its parts are, and which labels have too few to be judged."""

    dataset: Dataset
    parts: Mapping[str, int]
    enough: bool
    needed: int
    labels: Sequence[
        tuple[str, str, Sequence[int], bool]
    ]  # field, label, number by part, too few to be tested


def run_view(session: Session, run: TrainingRun) -> RunView:
    """A run for the page."""
    adapter = session.get(Adapter, run.adapter_id) if run.adapter_id else None
    return RunView(
        run,
        session.get(Dataset, run.dataset_id),
        adapter.name if adapter is not None else "",
        None if run.seconds_left is None else round(max(run.seconds_left, 0) / 60),
        loss_curve(run.id, run.losses, run.total_steps),
    )


def dataset_view(dataset: Dataset, settings: Settings) -> DatasetView:
    """A dataset for the page."""
    parts = dataset.counts.get("split", {})
    labels: list[tuple[str, str, Sequence[int], bool]] = []
    for field, by_label in dataset.counts.get("labels_by_split", {}).items():
        for label, counts in by_label.items():
            numbers = [counts.get(part, 0) for part in SPLITS]
            labels.append((field, label, numbers, numbers[2] < MIN_CLASS))
    needed = settings.gate_min_test
    return DatasetView(dataset, parts, parts.get("test", 0) >= needed, needed, labels)


def adapter_view(session: Session, adapter: Adapter, user: User, seen: Sight) -> AdapterView:
    """An adapter for the page, and what this person may do with it."""
    verdict = adapter.card.get("verdict", {})
    decision = adapters.decision(adapter)
    scores = verdict.get("scores", {})
    models = [model for model in WHO if model in scores]
    run, _dataset = adapters.origin(session, adapter)
    usable = decision == "promoted" and adapter.state in ("candidate", "shadow", "retired")
    return AdapterView(
        adapter,
        STATES.get(adapter.state, adapter.state),
        decision,
        verdict.get("sentence", ""),
        verdict.get("rule", ""),
        _gain(verdict),
        verdict.get("num_test", 0),
        verdict.get("checks", ()),
        [WHO[model] for model in models],
        _figures(scores, models),
        _classes(scores, models),
        _changes(session, verdict.get("changes", ()), seen),
        usable and may(user, "reviewer"),
        run is not None and run.created_by == user.email,
    )


def promotion_words(promotion: Promotion) -> str:
    """The proof of a roll-back, or why a promotion was forced, in words."""
    proof = promotion.proof
    if promotion.kind != "rollback":
        return f"without the gate: {proof['forced']}" if proof.get("forced") else ""
    if proof.get("skipped") or "of" not in proof:
        return "unproven, as asked for"
    said = f"{proof.get('equal', 0)} of {proof['of']} probe answers equal the recorded ones"
    if proof.get("proven") is None:
        said = f"its {proof['of']} probe answers were recorded for the next time"
    return f"{said}, and that was to be ignored" if proof.get("anyway") else said


def _gain(verdict: Mapping[str, Any]) -> str:
    gain, interval = verdict.get("gain"), verdict.get("gain_interval")
    if gain is None or not interval:
        return ""
    return f"{gain:+.3f} an email, between {interval[0]:+.3f} and {interval[1]:+.3f}"


def _figures(scores: Mapping[str, Any], models: Sequence[str]) -> list[tuple[str, list[Cell]]]:
    rows: list[tuple[str, list[Cell]]] = []
    for title, kind, field, metric in FIGURES:
        found = [scores[model].get(kind, {}).get(field, {}) for model in models]
        if any(one.get(metric) is not None for one in found):
            rows.append((title, [_cell(one, metric) for one in found]))
    for title, name in (("urgent found", "urgent_recall"), ("seconds an email", "seconds_median")):
        values = [scores[model].get(name) for model in models]
        if any(value is not None for value in values):
            seconds = name.startswith("seconds")
            rows.append((title, [Cell(_said(value, seconds=seconds)) for value in values]))
    return rows


def _said(value: float | None, *, seconds: bool) -> str:
    if value is None:
        return "–"
    return f"{value:.2f} s" if seconds else f"{value * 100:.0f} %"


def _cell(found: Mapping[str, Any], metric: str) -> Cell:
    value = found.get(metric)
    if value is None:
        return Cell("–")
    number = found.get("n", 0)
    interval = ""
    if metric in SHARES and number:
        low, high = wilson(value, number)
        interval = f"{low * 100:.0f} to {high * 100:.0f} %, {number} emails"
    return Cell(f"{value * 100:.0f} %", interval)


def wilson(share: float, number: int) -> tuple[float, float]:
    """The interval of a share of so many, 95 % (Wilson 1927): also where the share is 0 or 1."""
    middle = (share + Z * Z / (2 * number)) / (1 + Z * Z / number)
    half = Z * sqrt(share * (1 - share) / number + Z * Z / (4 * number * number)) / (1 + Z * Z / number)
    return max(0.0, middle - half), min(1.0, middle + half)


def _classes(scores: Mapping[str, Any], models: Sequence[str]) -> list[tuple[str, str, int, Sequence[str]]]:
    rows: list[tuple[str, str, int, Sequence[str]]] = []
    if not models:
        return rows
    for field, found in scores[models[0]].get("labels", {}).items():
        for label, first in found.get("classes", {}).items():
            support = first.get("support", 0)
            if not support:
                continue
            each = [
                scores[m].get("labels", {}).get(field, {}).get("classes", {}).get(label, {}) for m in models
            ]
            shown = [f"{round(one.get('recall', 0) * support)} of {support}" for one in each]
            rows.append((field, label, support, shown))
    return rows


def _changes(session: Session, changes: Sequence[Mapping[str, str]], seen: Sight) -> list[Change]:
    ids = {
        change["id"]: int(number)
        for change in changes
        if (number := change["id"].removeprefix("brief-")).isdecimal() and len(number) < 10
    }
    query = (
        select(Brief.id, Conversation)
        .join(Conversation, col(Brief.conversation_id) == col(Conversation.id))
        .where(col(Brief.id).in_(list(ids.values())))
    )
    where = {id_: conversation for id_, conversation in session.exec(query)}
    views: list[Change] = []
    for change in changes[:MAX_CHANGES]:
        conversation = where.get(ids.get(change["id"], 0))
        visible = conversation is not None and seen.sees(conversation.mailbox_id)
        views.append(
            Change(
                change["field"],
                change["truth"],
                change["before"],
                change["after"],
                conversation.id if conversation is not None and visible else None,
                conversation.subject if conversation is not None and visible else "",
            )
        )
    return views
