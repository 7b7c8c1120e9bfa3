"""Fine-tuning: tokens per second and peak memory, ours beside transformers' Trainer as most people use it.

    python -m bench.training [--examples 48] [--peer-examples 32] [--epochs 1] [--rounds 2] [--models FOLDER] [--dataset FILE.jsonl]

Ours begins with the starter adapter, as a run of the queue does. The peer: a LoRA of the same size, batches of 4 rows
padded to the longest, logits of the whole vocabulary at every place.
Each side trains in a process of its own, in turns. Tokens are those of the examples as the peer feeds them (without
padding), for both sides: what a side saves by computing the common beginning once counts as speed. The peer's speed does not
depend on how many examples there are, ours does (a small dataset is learned in small steps): --peer-examples saves time.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench.common import print_table
from briefbox.schemas import Example, TrainingProgress
from briefbox.settings import Settings, load_settings

# The starter's, with which our run begins; the peer's LoRA is as large, and begins with nothing.
RANK = 16
# With 8 rows of 550 tokens it took more than 20 GB.
PEER_BATCH = 4
SIDES = ("ours", "padded Trainer")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--examples", type=int, default=48)
    parser.add_argument("--peer-examples", type=int, help="fewer for the peer, which takes long")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--models", type=Path, help="folder of converted base models")
    parser.add_argument("--dataset", type=Path, help="JSONL file of examples; without it the starter set's")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(_measure(arguments)))
        return
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side in SIDES[:1] if arguments.ours_only else SIDES:
            command = [sys.executable, "-m", "bench.training", *sys.argv[1:], "--side", side]
            # The last line: what a library says on the way is not ours.
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[side].append(json.loads(output.splitlines()[-1]))
    best = {side: median(r["tokens_per_second"] for r in found) for side, found in results.items() if found}
    print_table(
        f"{arguments.examples} examples, {arguments.epochs:g} epochs, median of {arguments.rounds}",
        ["side", "tokens", "seconds", "tokens/s", "ratio", "peak memory", "first loss", "last loss"],
        [
            (
                side,
                int(found[0]["tokens"]),
                f"{median(r['seconds'] for r in found):.0f}",
                f"{best[side]:.0f}",
                f"{best[side] / best[SIDES[-1]]:.2f}" if SIDES[-1] in best else "",
                f"{max(r['memory'] for r in found):.2f} GB",
                f"{found[0]['first']:.3f}",
                f"{found[0]['last']:.3f}",
            )
            for side, found in results.items()
            if found
        ],
    )


def _measure(arguments: argparse.Namespace) -> dict[str, float]:
    settings = load_settings(
        device="cpu", epochs=arguments.epochs, lora_rank=RANK, models_dir=arguments.models
    )
    if arguments.side != "ours" and arguments.peer_examples:
        arguments.examples = arguments.peer_examples
    examples = _examples(arguments)
    train = _ours if arguments.side == "ours" else _peer
    with TemporaryDirectory() as folder:
        tokens, seconds, losses = train(examples, settings, Path(folder))
    return {
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "first": losses[0],
        "last": sum(losses[-4:]) / len(losses[-4:]),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def _examples(arguments: argparse.Namespace) -> list[Example]:
    if arguments.dataset:
        from training.dataset import read_dataset

        return read_dataset(arguments.dataset)[: arguments.examples]
    from training.seeds import replay

    return replay(arguments.examples)


def _ours(examples: list[Example], settings: Settings, folder: Path) -> tuple[float, float, list[float]]:
    from models.base import resolve_base_model
    from training.default_adapter import shipped
    from training.finetune import Data, finetune

    steps: list[TrainingProgress] = []
    card = finetune(
        Data(examples),
        resolve_base_model(settings),
        settings,
        folder / "adapter",
        on_progress=lambda p: steps.append(TrainingProgress(p.step, p.total_steps, p.loss, p.seconds)),
        name="bench",
        start=shipped(settings),
    )
    losses = [p.loss for p in steps if p.loss is not None]
    return card.settings["num_tokens"] * settings.epochs, steps[-1].seconds, losses


def _peer(examples: list[Example], settings: Settings, folder: Path) -> tuple[float, float, list[float]]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

    from models.base import resolve_base_model
    from training.rows import encode_example

    base = resolve_base_model(settings)
    tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True)
    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32, local_files_only=True)
    rank = settings.lora_rank
    model = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    )
    rows = []
    for example in examples:
        row = encode_example(tokenizer, example, settings)
        labels = [i if w else -100 for i, w in zip(row.own, row.weights, strict=True)]
        rows.append({"input_ids": [*row.prefix, *row.own], "labels": [-100] * len(row.prefix) + labels})

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, Any]:
        width = max(len(row["input_ids"]) for row in batch)

        def pad(key: str, value: int) -> Any:
            return torch.tensor([row[key] + [value] * (width - len(row[key])) for row in batch])

        mask = torch.tensor([[1] * len(r["input_ids"]) + [0] * (width - len(r["input_ids"])) for r in batch])
        return {"input_ids": pad("input_ids", 0), "labels": pad("labels", -100), "attention_mask": mask}

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=PEER_BATCH,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=1,
            use_cpu=True,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="steps",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows,
        data_collator=collate,
    )
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return sum(len(row["input_ids"]) for row in rows) * settings.epochs, seconds, [float(x) for x in losses]


if __name__ == "__main__":
    main()
