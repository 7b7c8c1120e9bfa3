"""The learning loop on one page: what the next run has, how one goes, what the gate said, what to decide.

Everybody sees it, since what agents correct is what it is made of; reviewers and admins start, cancel, promote, put on
trial and roll back. The training worker has the engine and the harvest: what needs them is asked of it by a row and a
hint, and the page shows what became of it. The store's rules decide, whatever the page showed.
"""

from typing import Annotated, Any, cast

from fastapi import APIRouter, Path, Request
from fastapi.responses import FileResponse, Response
from sqlmodel import Session, col

from briefbox.errors import InvalidValueError, NotFoundError
from briefbox.queue import hints_for
from briefbox.schemas import BRIEF_FIELDS
from briefbox.store import adapters, judgements, retraining, shadows
from briefbox.store import training as store
from briefbox.store import training_requests as requests
from briefbox.tables import Brief, RollBackRequest, TrainingRequest
from desk.access import Reviewer, Seen, SignedIn, may
from desk.context import Desk, TheDesk, answer, page
from desk.insight import training_views as views

router = APIRouter(prefix="/training")

Id = Annotated[int, Path(ge=1, le=2**31 - 1)]
Name = Annotated[str, Path(max_length=200)]

MAX_RUNS, MAX_ADAPTERS, MAX_DISAGREEMENTS, MAX_HISTORY = 8, 12, 20, 20
NOTES = {
    "asked": "Asked for. The training worker harvests first; then the run begins.",
    "looking": "Asked for. What would be learned stands below in a moment.",
    "cancelled": "The run is asked to stop; it does so after its step.",
    "promoted": "In use from the next batch on.",
    "shadow": "On trial: it briefs a share of the mail unseen.",
    "no-shadow": "No longer on trial.",
    "rolling-back": "Asked for. The training worker proves the adapter first; then it is in use again.",
    "picked": "Noted. It will be used in the next training.",
}


@router.get("")
def training_page(request: Request, desk: TheDesk, user: SignedIn, seen: Seen, note: str = "") -> Response:
    """The page."""
    with desk.database.read() as session:
        datasets = store.datasets(session)
        dataset = next(iter(datasets), None)
        return page(
            request,
            "training.html",
            note=NOTES.get(note, ""),
            judged=judgements.since_last_run(session),
            agreement=judgements.agreement(session),
            agreement_days=judgements.AGREEMENT_DAYS,
            dataset=views.dataset_view(dataset, desk.settings) if dataset is not None else None,
            may_download=may(user, "reviewer") and seen.mailboxes is None,
            may_decide=may(user, "reviewer"),
            adapters=[
                views.adapter_view(session, a, user, seen) for a in adapters.all_of(session)[:MAX_ADAPTERS]
            ],
            champion=adapters.champion(session),
            back_to=_back_to(session),
            history=[
                (p, views.promotion_words(p)) for p in reversed(adapters.promotions(session)[-MAX_HISTORY:])
            ],
            automatic=desk.settings.promotion == "automatic",
            disagreements=shadows.disagreements(session, limit=MAX_DISAGREEMENTS, sight=seen),
            fields=BRIEF_FIELDS,
            splits=views.SPLITS,
            min_class=views.MIN_CLASS,
            **_live(session, desk),
        )


@router.get("/live")
def live_part(request: Request, desk: TheDesk, user: SignedIn) -> Response:
    """What moves while something is under way, alone: the page puts it in place of the old."""
    with desk.database.read() as session:
        return page(request, "training_live.html", may_decide=may(user, "reviewer"), **_live(session, desk))


@router.post("/start")
def start(request: Request, desk: TheDesk, user: Reviewer) -> Response:
    """Harvest and train now."""
    return _ask(request, desk, "train", user.email, "asked")


@router.post("/look")
def look(request: Request, desk: TheDesk, user: Reviewer) -> Response:
    """What would be learned and what is left out; nothing is written."""
    return _ask(request, desk, "look", user.email, "looking")


@router.post("/runs/{run_id}/cancel")
def cancel(request: Request, desk: TheDesk, run_id: Id, user: Reviewer) -> Response:
    """Stop a run."""
    with desk.database.write() as session:
        run = store.cancel_run(session, run_id, actor=user.email)
        state = run.state
    return answer(request, "/training?note=cancelled", state=state)


@router.post("/datasets/{name}/download")
def download(desk: TheDesk, name: Name, user: Reviewer, seen: Seen) -> Response:
    """A dataset version as JSONL: the mail of all mailboxes, so for those who see them all. Audited as an export."""
    if seen.mailboxes is not None:
        raise NotFoundError("Datasets are made of the mail of all mailboxes, and you see some of them only.")
    with desk.database.write() as session:
        file = store.take_dataset(session, name, desk.settings.data_dir, actor=user.email)
    return FileResponse(file, media_type="application/jsonl", filename=f"{name}.jsonl")


@router.post("/adapters/{name}/promote")
def promote(request: Request, desk: TheDesk, name: Name, user: Reviewer) -> Response:
    """Put an adapter in use that the gate passed."""
    with desk.database.write() as session:
        adapters.promote(
            session, name, actor=user.email, four_eyes=desk.settings.promotion == "person", reason=""
        )
    return answer(request, "/training?note=promoted")


@router.post("/adapters/{name}/shadow")
def shadow(request: Request, desk: TheDesk, name: Name, user: Reviewer, on: str = "yes") -> Response:
    """Put an adapter on trial, or end the trial (`?on=no`)."""
    with desk.database.write() as session:
        adapters.shadow(session, name if on == "yes" else None, actor=user.email)
    return answer(request, f"/training?note={'shadow' if on == 'yes' else 'no-shadow'}")


@router.post("/rollback")
def roll_back(request: Request, desk: TheDesk, user: Reviewer) -> Response:
    """Put back in use what was before, after a proof: the training worker does it."""
    with desk.database.write() as session:
        made = requests.ask_roll_back(session, actor=user.email)
        number = made.id
    hints_for(desk.settings).train(0)
    return answer(request, "/training?note=rolling-back", id=number)


@router.post("/disagreements/{shadow_id}/{choice}")
def pick(request: Request, desk: TheDesk, shadow_id: Id, choice: str, user: SignedIn, seen: Seen) -> Response:
    """Which of two briefs is right: an ordinary correction or confirmation."""
    if choice not in ("shown", "shadow"):
        raise InvalidValueError(f"The choice “{choice}” is none of shown, shadow.")
    with desk.database.write() as session:
        brief = session.get(Brief, shadow_id)
        if brief is not None:
            seen.check_conversation(session, brief.conversation_id)
        made = shadows.pick(session, shadow_id, cast(shadows.Choice, choice), user=user)
    return answer(request, "/training?note=picked", corrections=len(made))


# --- parts


def _ask(request: Request, desk: Desk, kind: requests.Kind, actor: str, note: str) -> Response:
    with desk.database.write() as session:
        made = requests.ask(session, kind, actor=actor)
        number = made.id
    # Beat asks the worker every few seconds anyway: where Redis is away it only takes longer.
    hints_for(desk.settings).train(0)
    return answer(request, f"/training?note={note}", id=number)


def _live(session: Session, desk: Desk) -> dict[str, Any]:
    runs = [views.run_view(session, run) for run in store.runs(session, limit=MAX_RUNS)]
    return {
        "schedule": str(retraining.look(session, desk.settings)),
        "runs": runs,
        "look": requests.latest(session, TrainingRequest, col(TrainingRequest.kind) == "look"),
        "train": requests.latest(session, TrainingRequest, col(TrainingRequest.kind) == "train"),
        "rollback": requests.latest(session, RollBackRequest),
        "moving": any(view.is_open for view in runs) or bool(requests.open_requests(session)),
        "training_now": any(view.run.state == "running" for view in runs),
    }


def _back_to(session: Session) -> str | None:
    """What roll-back would put in use ("" is the bare base); None where there is nothing to roll back."""
    return next(iter(adapters.way_back(session)), None)
