"""Training runs, adapters and datasets: what was learned from which corrections, and what is in use."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import FileResponse, Response
from pydantic import Field
from sqlmodel import Session
from starlette.exceptions import HTTPException

from briefbox.store import adapters, exports
from briefbox.store import training as store
from briefbox.tables import Adapter, Dataset, TrainingRun
from desk.api import answers
from desk.api.access import Administering, Caller, Reading, ReadingAsReviewer
from desk.api.answers import OnceOnly
from desk.api.models import After, Id, Limit, Model, Moment, Page
from desk.context import TheDesk

router = APIRouter()

Name = Annotated[str, Path(max_length=200)]


class RunOut(Model):
    """One fine-tuning run."""

    id: int
    dataset: str = Field(description="The name of the dataset's version.")
    base_model: str
    method: str
    state: str = Field(description="waiting, running, done, failed or cancelled.")
    stage: str = Field(description="Of a running one: training, calibrating, evaluating.")
    step: int
    total_steps: int
    loss: float | None
    losses: list[list[float]] = Field(description="Pairs of step and loss: the curve.")
    seconds_left: float | None
    cancel_requested: bool
    cause: str = Field(description="person or schedule.")
    verdict: dict[str, Any] = Field(description="What the gate said, with its checks and scores.")
    error: str
    adapter: str | None = Field(description="The adapter that came of it.")
    created_by: str
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None


class RunIn(Model):
    """What to train on."""

    dataset: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="The name of a version. null: the newest."
    )


class AdapterOut(Model):
    """LoRA weights, and whether they are in use."""

    id: int
    name: str
    base_model: str
    weights_sha256: str
    state: str = Field(description="candidate, shadow, champion, retired, rejected or removed.")
    decision: str = Field(description="What the gate said: promoted (it passed), rejected, not enough data.")
    training_run_id: int | None
    card: dict[str, Any] = Field(description="What was measured, and on what.")
    created_at: Moment
    promoted_at: Moment | None


class Shadow(Model):
    """Whether it is on trial."""

    on: bool = True


class DatasetOut(Model):
    """One version of the dataset; it never changes."""

    id: int
    name: str
    content_hash: str = Field(description="sha256 of the file.")
    num_examples: int
    counts: dict[str, Any]
    source: str
    report: dict[str, Any] = Field(description="What was left out, and why.")
    created_at: Moment


# --- runs


@router.get(
    "/training-runs",
    response_model=Page[RunOut],
    summary="List training runs, newest first",
    tags=["training runs"],
)
def list_runs(
    request: Request, desk: TheDesk, caller: Reading, limit: Limit = 50, after: After = ""
) -> Response:
    """With their verdicts."""
    place = exports.Place(answers.after_id(after), limit)
    with desk.database.read() as session:
        return answers.part(request, exports.runs(session, place), lambda row: _run(session, row))


@router.get(
    "/training-runs/{run_id}", response_model=RunOut, summary="Get a training run", tags=["training runs"]
)
def get_run(request: Request, desk: TheDesk, caller: Reading, run_id: Id) -> Response:
    """Ask again with If-None-Match to see how it goes on."""
    with desk.database.read() as session:
        return answers.one(request, _run(session, store.get_run(session, run_id)))


@router.post(
    "/training-runs",
    response_model=RunOut,
    status_code=201,
    summary="Start a training run",
    tags=["training runs"],
)
def start_run(desk: TheDesk, caller: Administering, once: OnceOnly, wanted: RunIn = RunIn()) -> Response:
    """On a dataset that is there. It waits until a training worker takes it up; 409 while the same one is open."""

    def change(session: Session) -> RunOut:
        dataset = store.get_dataset(session, wanted.dataset)
        run = TrainingRun(dataset_id=dataset.id, base_model=desk.settings.base_model)
        return _run(session, store.add_run(session, run, actor=caller.user.email))

    return once.do(change, status=201)


@router.post(
    "/training-runs/{run_id}/cancel",
    response_model=RunOut,
    summary="Cancel a training run",
    tags=["training runs"],
)
def cancel_run(caller: Administering, once: OnceOnly, run_id: Id) -> Response:
    """A running one stops after its step."""
    return once.do(lambda session: _run(session, store.cancel_run(session, run_id, actor=caller.user.email)))


# --- adapters


@router.get(
    "/adapters", response_model=Page[AdapterOut], summary="List adapters, newest first", tags=["adapters"]
)
def list_adapters(
    request: Request, desk: TheDesk, caller: Reading, limit: Limit = 50, after: After = ""
) -> Response:
    """Removed ones too."""
    place = exports.Place(answers.after_id(after), limit)
    with desk.database.read() as session:
        return answers.part(request, exports.adapters(session, place), _adapter)


@router.get("/adapters/{name}", response_model=AdapterOut, summary="Get an adapter", tags=["adapters"])
def get_adapter(request: Request, desk: TheDesk, caller: Reading, name: Name) -> Response:
    """With its card."""
    with desk.database.read() as session:
        return answers.one(request, _adapter(adapters.get(session, name)))


@router.post(
    "/adapters/{name}/promote", response_model=AdapterOut, summary="Put an adapter in use", tags=["adapters"]
)
def promote(desk: TheDesk, caller: Administering, once: OnceOnly, name: Name) -> Response:
    """One that the gate has passed, and whose run somebody else started: the rules of the desk."""
    four_eyes = desk.settings.promotion == "person"
    return once.do(
        lambda session: _adapter(
            adapters.promote(session, name, actor=caller.user.email, four_eyes=four_eyes)
        )
    )


@router.post(
    "/adapters/{name}/shadow", response_model=AdapterOut, summary="Put an adapter on trial", tags=["adapters"]
)
def shadow(caller: Administering, once: OnceOnly, name: Name, wanted: Shadow = Shadow()) -> Response:
    """It briefs a share of live mail unseen, in place of the one that does so now; `on: false` ends it."""

    def change(session: Session) -> AdapterOut:
        row = adapters.get(session, name)
        if wanted.on or row.state == "shadow":
            adapters.shadow(session, name if wanted.on else None, actor=caller.user.email)
        return _adapter(row)

    return once.do(change)


# --- datasets


@router.get(
    "/datasets", response_model=Page[DatasetOut], summary="List datasets, newest first", tags=["datasets"]
)
def list_datasets(
    request: Request, desk: TheDesk, caller: Reading, limit: Limit = 50, after: After = ""
) -> Response:
    """Their counts; the examples are in the file."""
    place = exports.Place(answers.after_id(after), limit)
    with desk.database.read() as session:
        return answers.part(request, exports.datasets(session, place), _dataset)


@router.get("/datasets/{name}", response_model=DatasetOut, summary="Get a dataset", tags=["datasets"])
def get_dataset(request: Request, desk: TheDesk, caller: Reading, name: Name) -> Response:
    """What it holds."""
    with desk.database.read() as session:
        return answers.one(request, _dataset(store.get_dataset(session, name)))


@router.get(
    "/datasets/{name}/file",
    response_class=Response,
    responses={
        200: {
            "description": "JSON Lines, an example each.",
            "content": {"application/jsonl": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    summary="Download a dataset",
    tags=["datasets"],
)
def download(desk: TheDesk, caller: ReadingAsReviewer, name: Name) -> Response:
    """It holds mail of all mailboxes: for reviewers and admins who see all of them. Audited as an export."""
    _refuse_narrow(caller)
    with desk.database.write() as session:
        file = store.take_dataset(session, name, desk.settings.data_dir, actor=caller.user.email)
    return FileResponse(file, media_type="application/jsonl", filename=f"{name}.jsonl")


def _refuse_narrow(caller: Caller) -> None:
    if caller.sight.mailboxes is not None:
        raise HTTPException(
            403, "A dataset holds mail of all mailboxes, and the token's owner does not see all of them."
        )


# --- as they go out


def _run(session: Session, row: TrainingRun) -> RunOut:
    dataset = session.get(Dataset, row.dataset_id)
    adapter = session.get(Adapter, row.adapter_id) if row.adapter_id else None
    same = {name: getattr(row, name) for name in RunOut.model_fields if name not in ("dataset", "adapter")}
    return RunOut(
        **same,
        dataset=dataset.name if dataset is not None else "",
        adapter=adapter.name if adapter is not None else None,
    )


def _adapter(row: Adapter) -> AdapterOut:
    same = {name: getattr(row, name) for name in AdapterOut.model_fields if name != "decision"}
    return AdapterOut(**same, decision=adapters.decision(row))


def _dataset(row: Dataset) -> DatasetOut:
    return DatasetOut(**{name: getattr(row, name) for name in DatasetOut.model_fields})
