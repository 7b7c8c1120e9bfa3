"""The learning loop on one page: when the next run begins, how one goes, what the gate said, what to decide.

Everybody sees it, since what agents correct is what it is made of; only admins cancel, promote and put on trial. Roll-back proves itself with the engine, which the desk does not have: it is a command.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from sqlmodel import Session

from briefbox.errors import InvalidValueError
from briefbox.schemas import BRIEF_FIELDS
from briefbox.store import adapters, retraining, shadows
from briefbox.store import training as store
from briefbox.tables import Adapter, Dataset, TrainingRun
from desk.access import Admin, SignedIn
from desk.context import TheDesk, answer, page

router = APIRouter(prefix="/training")

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]
Name = Annotated[str, Path(max_length=200)]

MAX_RUNS, MAX_ADAPTERS, MAX_DISAGREEMENTS = 10, 20, 20
# While a run is under way the page asks again after so many seconds.
REFRESH_SECONDS = 5
NOTES = {
    "cancelled": "The run is asked to stop; it does so after its step.",
    "promoted": "In use from the next batch on.",
    "shadow": "On trial: it briefs a share of the mail unseen.",
    "no-shadow": "No longer on trial.",
    "picked": "Noted. It will be used in the next training.",
}
# What an evaluation is summed up by here, of the many figures in the card.
FIGURES = (
    ("priority right", "labels", "priority", "accuracy"),
    ("category right", "labels", "category", "accuracy"),
    ("summary ROUGE-L", "texts", "summary", "rougeL"),
    ("headline ROUGE-L", "texts", "headline", "rougeL"),
)


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with its dataset and what came of it."""

    run: TrainingRun
    dataset: Dataset | None
    adapter: str
    minutes_left: int | None

    @property
    def is_open(self) -> bool:
        """Waiting or running."""
        return self.run.state in ("waiting", "running")


@dataclass(frozen=True, slots=True)
class AdapterView:
    """An adapter with its verdict as a table."""

    adapter: Adapter
    decision: str
    sentence: str
    checks: Sequence[dict[str, Any]]
    figures: Sequence[tuple[str, Sequence[str]]]  # a row: its name, then candidate, champion, base
    may_promote: bool


@router.get("")
def training_page(request: Request, desk: TheDesk, user: SignedIn, note: str = "") -> Response:
    """The page."""
    with desk.database.read() as session:
        runs = [_run_view(session, run) for run in store.runs(session, limit=MAX_RUNS)]
        found = shadows.disagreements(session, limit=MAX_DISAGREEMENTS)
        response = page(
            request,
            "training.html",
            note=NOTES.get(note, ""),
            schedule=str(retraining.look(session, desk.settings)),
            runs=runs,
            adapters=[_adapter_view(a) for a in adapters.all_of(session)[:MAX_ADAPTERS]],
            champion=adapters.champion(session),
            automatic=desk.settings.promotion == "automatic",
            disagreements=found,
            fields=BRIEF_FIELDS,
        )
    if any(view.is_open for view in runs):
        response.headers["Refresh"] = f"{REFRESH_SECONDS}; url=/training"
    return response


@router.post("/runs/{run_id}/cancel")
def cancel(request: Request, desk: TheDesk, run_id: Id, user: Admin) -> Response:
    """Stop a run."""
    with desk.database.write() as session:
        run = store.cancel_run(session, run_id, actor=user.email)
        state = run.state
    return answer(request, "/training?note=cancelled", state=state)


@router.post("/adapters/{name}/promote")
def promote(request: Request, desk: TheDesk, name: Name, user: Admin) -> Response:
    """Put an adapter in use that the gate passed. The store's rules decide, whatever the page showed."""
    with desk.database.write() as session:
        adapters.promote(
            session, name, actor=user.email, four_eyes=desk.settings.promotion == "person", reason=""
        )
    return answer(request, "/training?note=promoted")


@router.post("/adapters/{name}/shadow")
def shadow(request: Request, desk: TheDesk, name: Name, user: Admin, on: str = "yes") -> Response:
    """Put an adapter on trial, or end the trial (`?on=no`)."""
    with desk.database.write() as session:
        adapters.shadow(session, name if on == "yes" else None, actor=user.email)
    return answer(request, f"/training?note={'shadow' if on == 'yes' else 'no-shadow'}")


@router.post("/disagreements/{shadow_id}/{choice}")
def pick(request: Request, desk: TheDesk, shadow_id: Id, choice: str, user: SignedIn) -> Response:
    """Which of two briefs is right: an ordinary correction or confirmation."""
    if choice not in ("shown", "shadow"):
        raise InvalidValueError(f"The choice “{choice}” is none of shown, shadow.")
    with desk.database.write() as session:
        made = shadows.pick(session, shadow_id, cast(shadows.Choice, choice), user=user)
    return answer(request, "/training?note=picked", corrections=len(made))


# --- views


def _run_view(session: Session, run: TrainingRun) -> RunView:
    adapter = session.get(Adapter, run.adapter_id) if run.adapter_id else None
    return RunView(
        run,
        session.get(Dataset, run.dataset_id),
        adapter.name if adapter is not None else "",
        None if run.seconds_left is None else round(max(run.seconds_left, 0) / 60),
    )


def _adapter_view(adapter: Adapter) -> AdapterView:
    verdict = adapter.card.get("verdict", {})
    decision = adapters.decision(adapter)
    return AdapterView(
        adapter,
        decision,
        verdict.get("sentence", ""),
        verdict.get("checks", ()),
        _figures(verdict.get("scores", {})),
        decision == "promoted" and adapter.state in ("candidate", "shadow", "retired"),
    )


def _figures(scores: dict[str, Any]) -> list[tuple[str, list[str]]]:
    who: list[str] = [model for model in ("candidate", "champion", "base") if model in scores]
    rows: list[tuple[str, list[str]]] = [("", who)] if who else []
    for title, kind, field, metric in FIGURES:
        values = [scores[model].get(kind, {}).get(field, {}).get(metric) for model in who]
        if any(value is not None for value in values):
            rows.append((title, ["–" if value is None else f"{value * 100:.0f} %" for value in values]))
    return rows
