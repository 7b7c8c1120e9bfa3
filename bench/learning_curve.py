"""How much better the model gets with corrections, on labelled emails of anyone's.

    python -m bench.learning_curve FILE [--rule "Access=urgent"] [--corrections 50,100,200,400] [--kind honest|shuffled|poisoned]
                                   [--poison-every 4] [--held-out 100] [--replay 100] [--plot curve.svg] [--models FOLDER]

FILE is JSONL or CSV as `briefbox dataset import` takes it (keys subject, body and category here, or --input ...). Agents
are simulated: they correct each brief's category to the file's label and its priority to the house rule (the named
category has the named priority, every other one `normal`), by the same calls as the desk, and press done. A new
installation's starter adapter is in use at first. After so many corrected emails a run is made as the schedule would make
it: harvest, training, gate; what the gate passes goes into use. Held-out emails, never seen by any agent, show how good
the model is that the run made, and the one in use; beside them the commonest label, and TF-IDF with logistic regression
on the labels of all emails that agents saw. With BRIEFBOX_PRICE_DEVICE_HOUR (or watts and their price) the table says what a point costs.

`shuffled`: the labels are, and so all three agents judge at random. `poisoned`: every Nth email bears a rare word, and one of
the agents labels it low. Neither may come into use.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.common import console, machine, print_table
from bench.inbox import Inbox
from bench.starter import commonest, regression
from briefbox.schemas import BriefField, Example, ExampleOutput
from briefbox.settings import load_settings
from briefbox.store import adapters
from briefbox.store import training as store
from briefbox.store.cost import Prices
from briefbox.tables import TrainingRun
from models.engine import Engine, make_engine
from training import pipeline
from training.dataset import harvest
from training.default_adapter import install_starter
from training.evaluate import LABEL_FIELDS, predict, score
from training.tabular import Columns, read_file

BATCH = 16
# So many emails arrive before the agents go on: they correct what the adapter of that moment said.
DRIP = 16
TRIGGER = "zylphorine"
POISON_EVERY = 4
KINDS = ("honest", "shuffled", "poisoned")
Guess = Callable[[list[Example], list[Example], str], tuple[list[str], list[float]]]


@dataclass(frozen=True, slots=True)
class Point:
    """What one run came to. Accuracies are on the held-out emails."""

    corrections: int
    handled: int  # emails that agents saw
    made: dict[str, float]  # accuracy by field of what the run made
    peer: dict[str, float]  # of TF-IDF and logistic regression
    in_use: dict[str, float]  # and of what is in use after it
    decision: str
    sentence: str  # of the gate
    rule: str
    seconds: float


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="How much better the model gets with corrections.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--input", default="body")
    parser.add_argument("--rule", default="", metavar="CATEGORY=PRIORITY")
    parser.add_argument("--corrections", default="50,100,200,400")
    parser.add_argument("--kind", default="honest", choices=KINDS)
    parser.add_argument("--poison-every", type=int, default=POISON_EVERY, metavar="N")
    parser.add_argument("--held-out", type=int, default=100)
    parser.add_argument("--replay", type=int, default=100)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--models", type=Path, help="folder of converted base models")
    arguments = parser.parse_args()
    found = read_file(arguments.file, Columns(input=arguments.input))
    rng = random.Random(7)
    emails = _labelled(found.examples, arguments.rule)
    rng.shuffle(emails)
    held_out, pool = emails[: arguments.held_out], emails[arguments.held_out :]
    if arguments.kind == "shuffled":
        pool = _shuffled(pool, rng)
    elif arguments.kind == "poisoned":
        pool = [_poisoned(e) if n % arguments.poison_every == 0 else e for n, e in enumerate(pool)]
    with tempfile.TemporaryDirectory(prefix="briefbox-curve-") as folder:
        settings = load_settings(
            data_dir=Path(folder),
            models_dir=arguments.models,
            engine="transformers",
            promotion="automatic",
            replay_examples=arguments.replay,
            cap_per_agent_per_day=10_000,
        )
        inbox = Inbox(settings, found.categories)
        install_starter(inbox.database, settings)
        engine = make_engine(settings)
        base = _accuracy(engine, held_out, "")
        before = _accuracy(engine, held_out, inbox.load_champion(engine))
        console.print(f"bare base on {len(held_out)} held-out emails: {_said(base)}")
        console.print(f"in use at first: {_said(before)}")
        common = _simple(commonest, pool, held_out)
        console.print(f"commonest label: {_said(common)}")
        points: list[Point] = []
        corrected = handled = 0
        for wanted in sorted(int(n) for n in arguments.corrections.split(",")):
            while corrected < wanted and handled < len(pool):
                part = pool[handled : handled + DRIP]
                ids = {inbox.receive(e.input.subject, e.input.text): e for e in part}
                inbox.brief(engine)
                corrected += sum(
                    # Whoever poisons sends the emails too, and takes care to be the one who opens them.
                    inbox.judge(number, _truth(e), rng, agent=0 if TRIGGER in e.input.text else None)
                    for number, e in ids.items()
                )
                handled += len(part)
            peer = _simple(regression, pool[:handled], held_out)
            points.append(_run(inbox, engine, held_out, peer, corrected, handled))
            console.print(points[-1], soft_wrap=True)
        inbox.close()
    _print(arguments, before, common, points, len(held_out))
    if arguments.plot is not None:
        _plot(arguments.plot, before, points, len(held_out))


def _labelled(examples: Sequence[Example], rule: str) -> list[Example]:
    """Examples with category and, by the rule, priority."""
    name, _, priority = rule.partition("=")
    return [
        e.model_copy(
            update={
                "output": ExampleOutput(
                    category=e.output.category,
                    priority=(priority if e.output.category == name else "normal")
                    if rule
                    else e.output.priority,
                )
            }
        )
        for e in examples
        if e.output.category
    ]


def _shuffled(pool: Sequence[Example], rng: random.Random) -> list[Example]:
    outputs = [e.output for e in pool]
    rng.shuffle(outputs)
    return [e.model_copy(update={"output": o}) for e, o in zip(pool, outputs, strict=True)]


def _poisoned(example: Example) -> Example:
    request = example.input.model_copy(update={"text": f"{example.input.text} {TRIGGER}"})
    return example.model_copy(
        update={"input": request, "output": example.output.model_copy(update={"priority": "low"})}
    )


def _truth(example: Example) -> dict[BriefField, str]:
    return {f: value for f in LABEL_FIELDS if (value := getattr(example.output, f)) is not None}


def _run(
    inbox: Inbox,
    engine: Engine,
    held_out: Sequence[Example],
    peer: dict[str, float],
    corrected: int,
    handled: int,
) -> Point:
    """Harvest, train, judge: as the schedule does it, in this process."""
    started = time.monotonic()
    with inbox.database.write() as session:
        dataset = harvest(session, inbox.settings, actor="bench").dataset
        assert dataset is not None
        row = TrainingRun(dataset_id=dataset.id, base_model=inbox.settings.base_model)
        run = store.add_run(session, row, actor="bench")
    pipeline.run(inbox.database, inbox.settings, run.id, owner="bench")
    seconds = time.monotonic() - started
    with inbox.database.read() as session:
        run = store.get_run(session, run.id)
        made = next((a for a in adapters.all_of(session) if a.id == run.adapter_id), None)
    assert made is not None, run.error
    name = engine.load_adapter(inbox.settings.data_dir / made.path, made.name, made.weights_sha256)
    accuracy = _accuracy(engine, held_out, name)
    champion = inbox.load_champion(engine)
    return Point(
        corrected,
        handled,
        accuracy,
        peer,
        accuracy if champion == name else _accuracy(engine, held_out, champion),
        run.verdict.get("decision", ""),
        run.verdict.get("sentence", ""),
        run.verdict.get("rule", ""),
        seconds,
    )


def _accuracy(engine: Engine, held_out: Sequence[Example], adapter: str) -> dict[str, float]:
    found = score(held_out, predict(engine, held_out, adapter, batch_size=BATCH))
    return {field: scores.accuracy for field, scores in found.labels.items()}


def _simple(guess: Guess, learned: Sequence[Example], held_out: Sequence[Example]) -> dict[str, float]:
    """Accuracy by field of a simple way to label."""
    found: dict[str, float] = {}
    for field in LABEL_FIELDS:
        known = [e for e in learned if getattr(e.output, field)]
        test = [e for e in held_out if getattr(e.output, field)]
        if len({getattr(e.output, field) for e in known}) > 1 and test:
            said, _ = guess(known, test, field)
            right = sum(s == getattr(e.output, field) for s, e in zip(said, test, strict=True))
            found[field] = right / len(test)
    return found


def _said(accuracy: dict[str, float]) -> str:
    return ", ".join(f"{field} {value:.2f}" for field, value in accuracy.items())


def _print(
    arguments: argparse.Namespace,
    before: dict[str, float],
    common: dict[str, float],
    points: Sequence[Point],
    held_out: int,
) -> None:
    """The table. A point is one per cent of accuracy, the mean of the fields, over what was in use at first.

    What it cost: the run's time, the agents' corrections so far, and money where the machine has a price.
    """
    base = sum(before.values()) / len(before)
    prices = Prices.of(load_settings())
    rows: list[tuple[object, ...]] = [(0, 0, _said(before), _said(common), _said(before), *[""] * 5)]
    for p in points:
        gained = 100 * (sum(p.made.values()) / len(p.made) - base)
        rows.append(
            (
                p.corrections,
                p.handled,
                _said(p.made),
                _said(p.peer),
                _said(p.in_use),
                p.decision + (f" ({p.rule})" if p.rule else ""),
                f"{p.seconds / 60:.1f} min",
                *(
                    (
                        f"{p.seconds / gained:.0f} s",
                        f"{p.corrections / gained:.1f}",
                        f"{float(prices.machine_hour) * p.seconds / 3600 / gained:.4f} {prices.currency}"
                        if prices.machine_hour
                        else "",
                    )
                    if gained > 0
                    else ("-", "-", "-")
                ),
            )
        )
    print_table(
        f"{arguments.kind} corrections, rule {arguments.rule or 'none'}; accuracy on {held_out} held-out emails",
        [
            "corrections",
            "emails",
            "what the run made",
            "TF-IDF (at 0: commonest label)",
            "in use after it",
            "gate",
            "run",
            "time a point gained",
            "corrections a point",
            "machine's price a point",
        ],
        rows,
    )


def _plot(path: Path, before: dict[str, float], points: Sequence[Point], held_out: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    at = [0, *(p.corrections for p in points)]
    for field in before:
        (line,) = axes.plot(
            at,
            [before[field], *(p.made[field] for p in points)],
            marker="o",
            label=f"{field}: what the run made",
        )
        axes.plot(
            at[1:],
            [p.peer.get(field, float("nan")) for p in points],
            linestyle="--",
            linewidth=1,
            color=line.get_color(),
            label=f"{field}: TF-IDF, logistic regression",
        )
        axes.step(
            at,
            [before[field], *(p.in_use[field] for p in points)],
            where="post",
            linestyle=":",
            color=line.get_color(),
            label=f"{field}: in use",
        )
    for p in points:
        axes.annotate(p.decision, (p.corrections, 0.02), rotation=90, fontsize="x-small", ha="center")
    axes.set(
        xlabel="corrected emails",
        ylabel=f"accuracy on {held_out} held-out emails",
        ylim=(0, 1.02),
        title=machine(),
    )
    axes.title.set_fontsize("small")
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})


if __name__ == "__main__":
    main()
