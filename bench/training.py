"""Fine-tuning: tokens per second and peak memory, ours beside transformers' Trainer as most people use it.

    python -m bench.training [--examples 48] [--peer-examples 32] [--epochs 1] [--rounds 2] [--models FOLDER] [--dataset FILE.jsonl]
                             [--shape 1b] [--device auto] [--peer-batch 4] [--step-tokens N]

Ours begins with the starter adapter, as a run of the queue does. The peer: a LoRA of the same size, batches of 4 rows
padded to the longest, logits of the whole vocabulary at every place; on a GPU in bfloat16 too.
--shape trains random weights in the shape of a larger model (see bench.shapes), without the starter: speed does not depend
on what they say. "Of the product" is the arithmetic that the tokens need, without padding, attention and what is computed twice, by
the best rate of a large matrix product on the same device.
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
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench.common import print_table
from bench.shapes import SHAPES
from briefbox.schemas import Example, TrainingProgress
from briefbox.settings import PACKAGED_MODEL, Settings, load_settings

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
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights in this shape")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--peer-batch", type=int, default=PEER_BATCH, help="rows of the peer")
    parser.add_argument("--step-tokens", type=int, help="about so many a step; without it as a run chooses")
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(_measure(arguments)))
        return
    with TemporaryDirectory() as folder:
        _compare(arguments, Path(folder))


def _compare(arguments: argparse.Namespace, folder: Path) -> None:
    extra: list[str] = []
    if arguments.shape:
        _write_random(arguments, folder / arguments.shape)
        extra = ["--base", str(folder / arguments.shape)]
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side in SIDES[:1] if arguments.ours_only else SIDES:
            command = [sys.executable, "-m", "bench.training", *sys.argv[1:], *extra, "--side", side]
            # The last line: what a library says on the way is not ours.
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[side].append(json.loads(output.splitlines()[-1]))
    best = {side: median(r["tokens_per_second"] for r in found) for side, found in results.items() if found}
    print_table(
        f"{arguments.shape or 'packaged model'} on {results[SIDES[0]][0]['device']}: {arguments.examples} examples, {arguments.epochs:g} epochs, median of {arguments.rounds}",
        [
            "side",
            "tokens",
            "seconds",
            "tokens/s",
            "ratio",
            "of the product",
            "peak memory",
            "first loss",
            "last loss",
        ],
        [
            (
                side,
                int(found[0]["tokens"]),
                f"{median(r['seconds'] for r in found):.0f}",
                f"{best[side]:.0f}",
                f"{best[side] / best[SIDES[-1]]:.2f}" if SIDES[-1] in best else "",
                f"{median(r['product_share'] for r in found):.0%}",
                f"{max(r['memory'] for r in found):.2f} GB",
                f"{found[0]['first']:.3f}",
                f"{found[0]['last']:.3f}",
            )
            for side, found in results.items()
            if found
        ],
    )


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from bench.shapes import limits
    from models.device import choose_device, choose_dtype, describe

    ours = arguments.side == SIDES[0]
    base = {"base_model": str(arguments.base)} if arguments.base else {}
    tokens = {"train_tokens": arguments.step_tokens} if arguments.step_tokens else {}
    settings = load_settings(
        device=arguments.device,
        epochs=arguments.epochs,
        lora_rank=RANK,
        models_dir=arguments.models,
        **base,
        **tokens,
    )
    device = choose_device(settings)
    # The peer computes in float32 on a CPU, as most people do there.
    dtype = choose_dtype(device, settings) if ours or device.type == "cuda" else torch.float32
    if not ours and arguments.peer_examples:
        arguments.examples = arguments.peer_examples
    if arguments.step_tokens:
        from training import plan

        # A small dataset would be learned in smaller steps.
        plan.STEPS_PER_EPOCH = 1
    examples = _examples(arguments)
    with TemporaryDirectory() as folder:
        side = _ours(examples, settings, Path(folder)) if ours else _peer(examples, settings, arguments)
    on_cuda = device.type == "cuda"
    memory = (
        torch.cuda.max_memory_allocated()
        if on_cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    product, _ = limits(device, dtype)
    return {
        "tokens": side.tokens,
        "seconds": side.seconds,
        "tokens_per_second": side.tokens / side.seconds,
        "first": side.losses[0],
        "last": sum(side.losses[-4:]) / len(side.losses[-4:]),
        "memory": memory / 1e9,
        "product_share": side.operations / side.seconds / product,
        "device": f"{describe(device)}, {str(dtype).removeprefix('torch.')}",
    }


@dataclass(frozen=True, slots=True)
class Side:
    """What a side did: `tokens` as the peer feeds them, `operations` those that its own tokens need."""

    tokens: float
    seconds: float
    losses: list[float]
    operations: float


def _operations(config: Any, tokens: float, places: float) -> float:
    """Of the linear layers: forward, and backward to the activations. `places` are those of which logits are made.

    For the LoRA weights, backward to themselves as well.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    size = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = config.num_attention_heads * size, config.num_key_value_heads * size
    shapes = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    shapes += [(hidden, inner), (hidden, inner), (inner, hidden)]
    frozen = sum(one * other for one, other in shapes)
    lora = sum(RANK * (one + other) for one, other in shapes)
    layers = config.num_hidden_layers
    return float(layers * (4 * frozen + 6 * lora) * tokens + 4 * hidden * config.vocab_size * places)


def _write_random(arguments: argparse.Namespace, folder: Path) -> None:
    """A base model of random weights in a shape, with the packaged model's tokenizer."""
    import torch
    from transformers import AutoTokenizer

    from bench.shapes import random_model
    from models.base import resolve_base_model
    from models.device import choose_device

    settings = load_settings(models_dir=arguments.models, device=arguments.device)
    tokenizer = AutoTokenizer.from_pretrained(resolve_base_model(settings).path, local_files_only=True)
    torch.manual_seed(0)
    model = random_model(arguments.shape, torch.bfloat16, choose_device(settings))
    model.config._attn_implementation = "sdpa"
    model.config.bos_token_id = tokenizer.bos_token_id
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _examples(arguments: argparse.Namespace) -> list[Example]:
    if arguments.dataset:
        from training.dataset import read_dataset

        return read_dataset(arguments.dataset)[: arguments.examples]
    from training.seeds import replay

    return replay(arguments.examples)


def _ours(examples: list[Example], settings: Settings, folder: Path) -> Side:
    from transformers import AutoConfig, AutoTokenizer

    from models.base import resolve_base_model
    from training.default_adapter import shipped
    from training.finetune import Data, finetune
    from training.rows import Batches, encode_example, packed_tokens

    steps: list[TrainingProgress] = []
    base = resolve_base_model(settings)
    card = finetune(
        Data(examples),
        base,
        settings,
        folder / "adapter",
        on_progress=lambda p: steps.append(TrainingProgress(p.step, p.total_steps, p.loss, p.seconds)),
        name="bench",
        start=shipped(settings) if settings.base_model == PACKAGED_MODEL else None,
    )
    losses = [p.loss for p in steps if p.loss is not None]
    # What was computed: the common beginning once for each pack.
    tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True)
    rows = [encode_example(tokenizer, example, settings) for example in examples]
    packs = list(Batches(rows, card.settings["pack_tokens"], seed=0))
    computed = sum(packed_tokens([rows[number] for number in numbers]) for numbers in packs)
    places = sum(row.num_targets for row in rows)
    config = AutoConfig.from_pretrained(base.path, local_files_only=True)
    return Side(
        card.settings["num_tokens"] * settings.epochs,
        steps[-1].seconds,
        losses,
        _operations(config, computed, places) * settings.epochs,
    )


def _peer(examples: list[Example], settings: Settings, arguments: argparse.Namespace) -> Side:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

    from models.base import resolve_base_model
    from models.device import choose_device
    from training.rows import encode_example

    on_cuda = choose_device(settings).type == "cuda"
    base = resolve_base_model(settings)
    tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True)
    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(
        base.path, dtype=torch.bfloat16 if on_cuda else torch.float32, local_files_only=True
    )
    config = model.config
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
            output_dir=str(arguments.base or settings.models_path),  # nothing is saved
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=arguments.peer_batch,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=1,
            use_cpu=not on_cuda,
            bf16=on_cuda,
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
    tokens = sum(len(row["input_ids"]) for row in rows) * settings.epochs
    return Side(tokens, seconds, [float(x) for x in losses], _operations(config, tokens, tokens))


if __name__ == "__main__":
    main()
