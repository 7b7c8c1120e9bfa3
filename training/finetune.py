"""Fine-tuning: examples and a base model become a LoRA adapter on disk.

Always from the bare base model on the whole dataset, never on top of an earlier adapter, so that an
adapter depends on nothing but what its card names. The prompt is the one that inference uses
(models.prompt). Knows no database: progress goes to a callback, which may stop the run by raising.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from briefbox.errors import ModelError, OutOfMemoryError, TrainingError
from briefbox.schemas import AdapterCard, Category, Example, ProgressCallback, TrainingProgress
from briefbox.settings import Settings
from models.base import BaseModel
from models.device import choose_device, choose_dtype, describe
from models.prompt import PROMPT_VERSION, allowed_labels, encode_answer, encode_prompt
from models.quiet import quiet_peft, quiet_transformers
from models.registry import adapter_parts, write_adapter

METHODS = ("lora",)

# Twice the rank, so that LoRA's scale (alpha / rank) and with it the learning rate stay right for every rank.
ALPHA_PER_RANK = 2
WARM_UP_SHARE = 0.1
MAX_GRADIENT_NORM = 1.0


def finetune(
    examples: Sequence[Example],
    base: BaseModel,
    settings: Settings,
    output_dir: Path,
    *,
    on_progress: ProgressCallback,
    name: str,
    dataset_name: str,
    dataset_hash: str,
    method: str = "lora",
    seed: int = 0,
) -> AdapterCard:
    """Train an adapter and write it to `output_dir`, which must not exist yet. Returns its card.

    `on_progress` is called once before the first step and after each step; what it raises stops the run and
    nothing is written. Raises TrainingError, ModelError, AdapterError, OutOfMemoryError.
    """
    if method not in METHODS:
        raise TrainingError(f"The method {method} is not supported yet; supported now: {', '.join(METHODS)}.")
    started = time.monotonic()
    with _memory_errors(settings):
        # 1. What to learn, before the weights are read: a mistake in the data shows at once.
        tokenizer = _load_tokenizer(base)
        rows = [
            row for example in examples if (row := encode_example(tokenizer, example, settings))["targets"]
        ]
        if not rows:
            raise TrainingError(
                "There is no example to learn from. Correct or confirm some briefs and press done, then make a dataset with: briefbox dataset harvest"
            )
        # 2. The frozen base with fresh LoRA weights.
        device = choose_device(settings)
        dtype = choose_dtype(device, settings)
        set_seed(seed)  # LoRA's first weights are random
        model = _add_lora(_load_model(base, dtype), settings.lora_rank)
        _check_lengths(rows, examples, model)
        # 3. Train.
        reporter = _train(model.to(device), rows, settings, on_progress, seed=seed)
        # 4. Write, in bfloat16: half the size, and what will be judged and served is what is stored.
        weights, config = adapter_parts(model)
    card = AdapterCard(
        name=name,
        base_model=base.name,
        base_sha256=base.sha256,
        weights_sha256="",  # filled in by the registry
        prompt_version=PROMPT_VERSION,
        dataset=dataset_name,
        dataset_hash=dataset_hash,
        num_examples=len(rows),
        method=method,
        settings={
            "lora_rank": settings.lora_rank,
            "lora_alpha": settings.lora_rank * ALPHA_PER_RANK,
            "learning_rate": settings.learning_rate,
            "epochs": settings.epochs,
            "train_tokens": settings.train_tokens,
            "max_email_tokens": settings.max_email_tokens,
            "seed": seed,
            "steps": len(reporter.losses),
            "num_tokens": sum(len(row["input_ids"]) for row in rows),
            "device": describe(device),
            "dtype": str(dtype).removeprefix("torch."),
            "seconds": round(time.monotonic() - started, 1),
        },
        scores={"loss_first_step": reporter.losses[0], "loss_last_step": reporter.losses[-1]},
        created_at=datetime.now(UTC),
    )
    weights = {key: tensor.to(torch.bfloat16) for key, tensor in weights.items()}
    return write_adapter(output_dir, weights=weights, config=config, card=card)


# --- examples to numbers


def encode_example(tokenizer: Any, example: Example, settings: Settings) -> dict[str, Any]:
    """An example as ids and the weight of each id in the loss: 0 for everything that is given to the model.

    Each field weighs the same, whatever its length. With a weight for each token, a corrected priority, one
    token of some sixty, would hardly count beside the summary.
    """
    request = example.input
    category = example.output.category
    if category and category not in allowed_labels("category", request):
        # The agent chose a category that was made after the brief. The prompt lists it, as for mail of today.
        request = request.model_copy(update={"categories": (*request.categories, Category(name=category))})
    ids = list(encode_prompt(tokenizer, request, settings.max_email_tokens).ids)
    weights = [0.0] * len(ids)
    for segment in encode_answer(tokenizer, example.output, example.model_output):
        ids += segment.ids
        weights += [1 / len(segment.ids) if segment.is_target else 0.0] * len(segment.ids)
    return {"input_ids": ids, "weights": weights, "targets": sum(weight > 0 for weight in weights)}


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch, padded on the left: so all answers end in the last column, and logits are computed for those columns only."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([[0] * (width - len(row["input_ids"])) + row["input_ids"] for row in rows])
    weights = torch.tensor([[0.0] * (width - len(row["weights"])) + row["weights"] for row in rows])
    real = torch.tensor([[0] * (width - len(row["input_ids"])) + [1] * len(row["input_ids"]) for row in rows])
    answer = width - int(weights.any(dim=0).nonzero()[0])
    return {
        "input_ids": ids,
        "attention_mask": real,
        "position_ids": (real.cumsum(dim=1) - 1).clamp(min=0),
        "targets": ids[:, -answer:],
        "weights": weights[:, -answer:],
    }


def answer_loss(model: Any, batch: dict[str, Any]) -> Tensor:
    """Mean of the fields' losses; a field's loss is the mean of its tokens'."""
    targets, weights = batch["targets"], batch["weights"]
    output = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        use_cache=False,
        # One more than there are targets: a token is predicted at the place before it. The vocabulary's matrix
        # at every position of the prompt would cost several times the rest of the memory.
        logits_to_keep=targets.shape[1] + 1,
    )
    counted = weights > 0
    chosen = output.logits[:, :-1][counted].float()
    losses = torch.nn.functional.cross_entropy(chosen, targets[counted], reduction="none")
    share: Tensor = weights[counted]
    return (losses * share).sum() / share.sum()


# --- the run


class _AnswerTrainer(Trainer):  # type: ignore[misc]  # transformers ships no types that mypy can follow
    """transformers' loop with our loss and a schedule that wastes no step."""

    last_loss: Tensor

    def compute_loss(self, model: Any, inputs: dict[str, Any], **_: Any) -> Tensor:
        loss = answer_loss(model, inputs)
        self.last_loss = loss.detach()
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        self.lr_scheduler = LambdaLR(
            optimizer or self.optimizer, lambda step: learning_rate_share(step, num_training_steps)
        )
        return self.lr_scheduler


def learning_rate_share(step: int, total_steps: int) -> float:
    """Warm-up, then half a cosine down to nearly 0.

    Unlike transformers' own schedules no step has the rate 0: a run of a single step would learn nothing.
    """
    warm_up = max(1, round(total_steps * WARM_UP_SHARE))
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up + 1) / (total_steps - warm_up + 1)
    return 0.5 * (1 + math.cos(math.pi * done))


class _Reporter(TrainerCallback):  # type: ignore[misc]
    """Says after each step how far the run is, and stops one that went wrong."""

    def __init__(self, on_progress: ProgressCallback) -> None:
        self.trainer: _AnswerTrainer | None = None
        self.losses: list[float] = []
        self._on_progress = on_progress
        self._started = time.monotonic()

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._on_progress(TrainingProgress(0, state.max_steps))

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        assert self.trainer is not None
        loss = float(self.trainer.last_loss)
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} at step {state.global_step} of {state.max_steps}, so this run is worth nothing. Lower BRIEFBOX_LEARNING_RATE and train again."
            )
        self.losses.append(loss)
        seconds = time.monotonic() - self._started
        self._on_progress(TrainingProgress(state.global_step, state.max_steps, loss, seconds))


def _train(
    model: Any,
    rows: Sequence[dict[str, Any]],
    settings: Settings,
    on_progress: ProgressCallback,
    *,
    seed: int,
) -> _Reporter:
    on_cpu = model.device.type == "cpu"
    # The Trainer wants a folder, although nothing is saved: there are no checkpoints yet.
    with TemporaryDirectory(prefix="briefbox-train-") as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=4,
            train_sampling_strategy="group_by_length",
            learning_rate=settings.learning_rate,
            weight_decay=0.0,
            max_grad_norm=MAX_GRADIENT_NORM,
            # Activations of 30 layers are computed again instead of kept: see docs/training-log.md.
            activation_checkpointing=True,
            activation_checkpointing_kwargs={"use_reentrant": False},
            seed=seed,
            use_cpu=on_cpu,
            dataloader_pin_memory=not on_cpu,
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        reporter = _Reporter(on_progress)
        trainer = _AnswerTrainer(
            model=model, args=arguments, train_dataset=list(rows), data_collator=collate, callbacks=[reporter]
        )
        trainer.remove_callback(PrinterCallback)  # it prints to stdout
        reporter.trainer = trainer
        trainer.train()
    return reporter


# --- base model and LoRA


def _load_tokenizer(base: BaseModel) -> Any:
    try:
        return AutoTokenizer.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unusable(base, error) from error


def _load_model(base: BaseModel, dtype: torch.dtype) -> Any:
    try:
        with quiet_transformers():
            return AutoModelForCausalLM.from_pretrained(
                base.path,
                dtype=dtype,
                use_safetensors=True,
                attn_implementation="sdpa",
                local_files_only=True,
                trust_remote_code=False,
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unusable(base, error) from error


def _add_lora(model: Any, rank: int) -> Any:
    """LoRA on every linear layer but the output: more layers at a low rank learn better than few at a high one."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=rank * ALPHA_PER_RANK,
        lora_dropout=0.0,
        target_modules="all-linear",
    )
    with quiet_peft():
        # LoRA weights are float32 even where the frozen base is bfloat16: small updates would be rounded away.
        return get_peft_model(model, config, autocast_adapter_dtype=True)


def _check_lengths(rows: Sequence[dict[str, Any]], examples: Sequence[Example], model: Any) -> None:
    context = getattr(model.config, "max_position_embeddings", None)
    longest = max(len(row["input_ids"]) for row in rows)
    if context and longest > context:
        raise TrainingError(
            f"The longest of {len(examples)} examples has {longest} tokens, but the base model reads {context}; lower BRIEFBOX_MAX_EMAIL_TOKENS or use a base model with a longer context."
        )


def _unusable(base: BaseModel, error: Exception) -> ModelError:
    return ModelError(
        f"The base model in {base.path} cannot be loaded ({error}); set BRIEFBOX_BASE_MODEL to `packaged` or to a whole causal language model that transformers knows."
    )


@contextmanager
def _memory_errors(settings: Settings) -> Iterator[None]:
    """Turn every way in which torch says `out of memory` into OutOfMemoryError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # On the CPU torch raises a plain RuntimeError from its allocator.
        if type(error) is RuntimeError and "not enough memory" not in str(error):
            raise
        raise OutOfMemoryError(
            "A step of fine-tuning does not fit into memory; lower BRIEFBOX_TRAIN_TOKENS or BRIEFBOX_MAX_EMAIL_TOKENS."
        ) from error
