"""What training costs the mail that comes meanwhile, with and without standing aside.

    python -m bench.yielding [--emails 15] [--every 6] [--models FOLDER]

Emails arrive one by one in an installation with the packaged model; each is briefed at once, as the worker does. Time
from the committed row to the stored brief: alone, while a run trains that stands aside (the default: low priority of the
process, a pause between steps while mail waits), and while one trains that does not.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.common import console, print_table
from bench.inbox import Inbox
from briefbox.settings import Settings, load_settings
from briefbox.store import training as store
from briefbox.tables import TrainingRun
from models.engine import Engine, make_engine
from training import pipeline
from training.dataset import write_version
from training.seeds import read_seeds
from training.yielding import be_nice

WAYS = ("alone", "standing aside", "not standing aside")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="What training costs the mail that comes meanwhile.")
    parser.add_argument("--emails", type=int, default=15)
    parser.add_argument("--every", type=float, default=6.0)
    parser.add_argument("--models", type=Path, help="folder of converted base models")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "RUN"), help=argparse.SUPPRESS)
    parser.add_argument("--polite", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        folder, run = arguments.child
        _train(
            _settings(Path(folder), arguments.models, polite=arguments.polite),
            int(run),
            polite=arguments.polite,
        )
        return
    emails = [e for e in read_seeds() if e.split == "test" and 30 < len(e.input.text.split()) < 90]
    rows: list[tuple[object, ...]] = []
    alone = 0.0
    with tempfile.TemporaryDirectory(prefix="briefbox-yielding-") as name:
        settings = _settings(Path(name), arguments.models, polite=True)
        inbox = Inbox(settings)
        engine = make_engine(settings)
        _brief(inbox, engine, "warm up", "one email before the others")
        for number, way in enumerate(WAYS):
            run = _ask_for_run(inbox, number) if way != "alone" else 0
            child = _start(name, run, arguments.models, polite=way == "standing aside") if run else None
            try:
                if run:
                    _await_steps(inbox, run)
                part = emails[number * arguments.emails : (number + 1) * arguments.emails]
                times: list[float] = []
                for email in part:
                    started = time.monotonic()
                    times.append(_brief(inbox, engine, email.input.subject, email.input.text))
                    time.sleep(max(0.0, arguments.every - (time.monotonic() - started)))
                steps = _steps(inbox, run) if run else (0, 0.0)
            finally:
                if child is not None:
                    child.terminate()
                    child.wait()
            alone = alone or median(times)
            rows.append(
                (
                    way,
                    len(times),
                    f"{median(times):.2f} s",
                    f"{max(times):.2f} s",
                    f"{median(times) / alone:.2f}",
                    steps[0],
                )
            )
            console.print(rows[-1])
        inbox.close()
    print_table(
        "Committed row to stored brief, one email at a time",
        ["training meanwhile", "emails", "median", "longest", "median by that alone", "steps trained"],
        rows,
    )


def _settings(folder: Path, models: Path | None, *, polite: bool) -> Settings:
    return load_settings(
        data_dir=folder,
        models_dir=models,
        engine="transformers",
        train_floor=0.1 if polite else 1.0,
        train_tokens=1024,
    )


def _train(settings: Settings, run: int, *, polite: bool) -> None:
    from briefbox.db import open_database

    if polite:
        be_nice()
    pipeline.run(open_database(settings), settings, run, owner="bench")


def _start(folder: str, run: int, models: Path | None, *, polite: bool) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", "bench.yielding", "--child", folder, str(run)]
    words += ["--models", str(models)] if models else []
    return subprocess.Popen([*words, *(["--polite"] if polite else [])])


def _ask_for_run(inbox: Inbox, number: int) -> int:
    examples = [e for e in read_seeds() if e.split != "test"][number:300]
    with inbox.database.write() as session:
        dataset, _ = write_version(
            session, inbox.settings, examples, source="import", report={}, actor="bench"
        )
        row = TrainingRun(dataset_id=dataset.id, base_model=inbox.settings.base_model)
        return store.add_run(session, row, actor="bench").id


def _await_steps(inbox: Inbox, run: int) -> None:
    deadline = time.monotonic() + 300
    while _steps(inbox, run)[0] < 2:
        if time.monotonic() > deadline:
            raise SystemExit("the run did not begin to train within 300 s")
        time.sleep(0.5)


def _steps(inbox: Inbox, run: int) -> tuple[int, float]:
    with inbox.database.read() as session:
        row = store.get_run(session, run)
        return row.step, row.paused_seconds


def _brief(inbox: Inbox, engine: Engine, subject: str, text: str) -> float:
    inbox.receive(subject, text)
    started = time.monotonic()
    assert inbox.brief(engine)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
