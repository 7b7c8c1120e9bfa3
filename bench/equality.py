"""Do batches say what each email alone is told? And bfloat16 what float32 says?

    python -m bench.equality [--emails 40] [--batch 32] [--bfloat16 12] [--models FOLDER]

float32: text and labels of sorted batches with a shared prefix against one email at a time. bfloat16: labels against
float32's, and in batches against one at a time.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from bench.common import print_table
from bench.mails import varied_requests
from briefbox.schemas import Brief
from briefbox.settings import load_settings
from models.transformers_engine import TransformersEngine


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--emails", type=int, default=40)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--bfloat16", type=int, default=12, help="emails in bfloat16; slow where it is emulated"
    )
    parser.add_argument("--models", type=Path, help="folder of the converted model (BRIEFBOX_MODELS_DIR)")
    arguments = parser.parse_args()
    options: dict[str, Any] = {"models_dir": arguments.models} if arguments.models else {}
    settings = load_settings(batch_size=arguments.batch, **options)
    requests = varied_requests(arguments.emails)

    engine = TransformersEngine(settings, dtype=torch.float32)
    together = engine.brief(requests)
    alone = [brief for request in requests for brief in engine.brief([request])]
    rows = [("float32: batches and one at a time", *_agreement(together, alone))]
    if few := requests[: arguments.bfloat16]:
        short = TransformersEngine(settings, dtype=torch.bfloat16)
        short_together = short.brief(few)
        short_alone = [brief for request in few for brief in short.brief([request])]
        rows.append(("bfloat16: batches and one at a time", *_agreement(short_together, short_alone)))
        rows.append(("bfloat16 and float32, batches", *_agreement(short_together, together[: len(few)])))
    print_table(
        f"Output equality, batches of {arguments.batch}",
        ("pair", "emails", "same labels", "same text", "largest difference of a confidence"),
        rows,
    )


def _agreement(one: Sequence[Brief], other: Sequence[Brief]) -> tuple[str, str, str, str]:
    pairs = list(zip(one, other, strict=True))
    labels = sum(
        (a.priority.label, a.category.label) == (b.priority.label, b.category.label) for a, b in pairs
    )
    text = sum((a.headline, a.summary) == (b.headline, b.summary) for a, b in pairs)
    apart = max(
        abs(score - y.scores[label])
        for a, b in pairs
        for x, y in ((a.priority, b.priority), (a.category, b.category))
        for label, score in x.scores.items()
    )
    return str(len(pairs)), f"{labels / len(pairs):.1%}", f"{text / len(pairs):.1%}", f"{apart:.5f}"


if __name__ == "__main__":
    main()
