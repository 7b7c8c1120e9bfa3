"""Make the starter adapter: one command, from the starter set to a folder that a new installation begins with.

    python -m training.starter FOLDER [--epochs 4] [--rank 8] [--learning-rate 1e-3] [--step-tokens 1024]
                               [--weight priority=1.5 ...]
    python -m training.starter FOLDER --judge      judge one that is there already once more

It trains on the training part, stops by and calibrates on the validation part, and never learns from the held-out
part, on which the gate judges it against the bare base model. `python -m bench.starter FOLDER` has the other baselines. The same command again goes on where a killed one was.
"""

import argparse
import logging
import sys
from hashlib import sha256
from pathlib import Path
from shutil import rmtree

from briefbox.errors import BriefboxError
from briefbox.schemas import AdapterCard, TrainingProgress
from briefbox.settings import Settings, load_settings
from training.dataset import write_lines
from training.seeds import NAME, read_seeds

LATENCY_RATIO = 2.5


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="Make the starter adapter.")
    parser.add_argument("folder", type=Path, help="where to write it; must not exist yet")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--step-tokens", type=int, default=1024)
    parser.add_argument("--weight", action="append", default=[], metavar="FIELD=WEIGHT")
    parser.add_argument("--models", type=Path, help="folder of converted base models")
    parser.add_argument("--judge", action="store_true", help="judge only")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = load_settings(
        epochs=arguments.epochs,
        lora_rank=arguments.rank,
        learning_rate=arguments.learning_rate,
        train_tokens=arguments.step_tokens,
        models_dir=arguments.models,
    )
    weights = dict(pair.split("=") for pair in arguments.weight)
    try:
        if not arguments.judge:
            make(settings, arguments.folder, {field: float(value) for field, value in weights.items()})
        card = judge_starter(settings, arguments.folder)
    except BriefboxError as error:
        logging.error("%s", error)
        return 1
    logging.info("%s in %.0f s: %s", card.name, card.settings["seconds"], card.verdict["sentence"])
    return 0


def make(settings: Settings, folder: Path, field_weights: dict[str, float]) -> AdapterCard:
    """Train and write. Raises BriefboxError."""
    from models.base import resolve_base_model
    from training.finetune import Data, finetune

    seeds = read_seeds()
    learned, validation = ([e for e in seeds if e.split == part] for part in ("train", "validation"))
    digest = sha256(write_lines([*learned, *validation])).hexdigest()

    card = finetune(
        Data(learned, validation, NAME, digest, field_weights),
        resolve_base_model(settings),
        settings,
        folder,
        on_progress=_tell,
        name=NAME,
        checkpoints=(checkpoints := folder.with_name(f".{folder.name}-checkpoints")),
    )
    rmtree(checkpoints, ignore_errors=True)
    return card


def judge_starter(settings: Settings, folder: Path) -> AdapterCard:
    """Temperatures, verdict and fingerprint for the card. Raises BriefboxError."""
    from models.registry import read_card
    from training.judge import judge

    # The bare base writes a third as many facts and half as much text: that it is quicker says nothing.
    settings = settings.model_copy(update={"gate_latency_ratio": LATENCY_RATIO})
    return judge(settings, read_seeds(), read_card(folder), folder, None, on_progress=_tell)


def _tell(progress: TrainingProgress, /) -> None:
    left = f", {progress.seconds_left / 60:.0f} minutes left" if progress.seconds_left else ""
    loss = f", loss {progress.loss:.3f}" if progress.loss is not None else ""
    logging.info("%s: %d of %d%s%s", progress.stage, progress.step, progress.total_steps, loss, left)


if __name__ == "__main__":
    sys.exit(main())
