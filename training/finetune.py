"""Fine-tuning: examples and a base model become a LoRA adapter, or a whole model, on disk.

Always on the whole dataset and from the same beginning: the bare base model, or the starter adapter beside it
(docs/decisions/training-begins-with-the-starter.md). Never on top of what an earlier run made, so that an adapter depends
on nothing but what its card names. The prompt is the one that inference uses (models.prompt). Knows no
database: progress goes to a callback, which may stop the run by raising.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from briefbox.errors import ModelError, OutOfMemoryError, TrainingError
from briefbox.schemas import AdapterCard, Example, ProgressCallback, TrainingProgress
from briefbox.settings import Settings
from models.base import BaseModel, file_sha256, publish_folder
from models.device import choose_device, choose_dtype, describe
from models.prompt import PROMPT_VERSION
from models.quiet import quiet_peft, quiet_transformers
from models.registry import VerifiedAdapter, adapter_parts, verify_adapter, write_adapter, write_card
from training import attention
from training.plan import Plan, make_plan
from training.rows import UNWRITTEN, Batches, Row, encode_example, pack

METHODS = ("lora", "full", "scratch")

# Twice the rank, so that LoRA's scale (alpha / rank) and with it the learning rate stay right for every rank.
ALPHA_PER_RANK = 2
WARM_UP_SHARE = 0.1
MAX_GRADIENT_NORM = 1.0
# BRIEFBOX_LEARNING_RATE is LoRA's. Weights that were trained already bear a much smaller one, random ones a bit less.
RATE_SHARES = {"lora": 1.0, "full": 0.05, "scratch": 0.6}
# An adapter that knows the task already is not to forget it in the first steps.
START_RATE_SHARE = 0.5
# The validation loss is taken so often in an epoch; after so many without a better one the run stops.
EVALUATIONS_PER_EPOCH = 2
PATIENCE = 3
# By fewer examples the best moment can't be told from chance: the run goes to its end, and the schedule calms it.
MIN_VALIDATION = 20
# Between evaluations a checkpoint is written this often, so that a kill costs minutes.
CHECKPOINT_SECONDS = 300.0
STATE_FILE = "trainer_state.json"


@dataclass(frozen=True, slots=True)
class Data:
    """What a run learns from: its examples, those that only stop it (validation), and where they come from."""

    train: Sequence[Example]
    validation: Sequence[Example] = ()
    name: str = ""
    hash: str = ""
    # What a field counts in the loss; 1 where missing.
    field_weights: Mapping[str, float] = field(default_factory=dict)


def finetune(
    data: Data,
    base: BaseModel,
    settings: Settings,
    output_dir: Path,
    *,
    on_progress: ProgressCallback,
    name: str,
    method: str = "lora",
    seed: int = 0,
    start: Path | None = None,
    checkpoints: Path | None = None,
) -> AdapterCard:
    """Train and write to `output_dir`, which must not exist yet. Returns the card.

    `lora` writes an adapter, and begins with the weights (and the rank) of the adapter in the folder `start`
    where one is given; `full` (every weight) and `scratch` (from random weights of the base's
    configuration) write a whole model in safetensors with its tokenizer, and the card beside it.
    `on_progress` is called once before the first step and after each step; what it raises stops the run and
    nothing is written. With `checkpoints`, a folder, an earlier attempt of the same run is gone on with.
    Raises TrainingError, ModelError, AdapterError, OutOfMemoryError.
    """
    if method not in METHODS:
        raise TrainingError(f"The method {method} is not known; expected one of: {', '.join(METHODS)}.")
    started = time.monotonic()
    with _memory_errors():
        # 1. What to learn, before the weights are read: a mistake in the data shows at once.
        tokenizer = _load_tokenizer(base)
        rows, validation = (
            [
                row
                for example in part
                if (
                    row := encode_example(tokenizer, example, settings, data.field_weights, share)
                ).num_targets
            ]
            for part, share in ((data.train, UNWRITTEN), (data.validation, 0.0))
        )
        if len(validation) < MIN_VALIDATION:
            validation = []
        if not rows:
            raise TrainingError(
                "There is no example to learn from. Correct or confirm some briefs and press done, then make a dataset with: briefbox dataset harvest"
            )
        # 2. The frozen base with LoRA weights, or all weights.
        device = choose_device(settings)
        set_seed(seed)  # LoRA's first weights are random
        if method == "lora":
            beginning = _beginning(base, settings, start)
            model = _add_lora(_load_model(base, choose_dtype(device, settings)), beginning)
        else:
            beginning = Beginning(rate=settings.learning_rate * RATE_SHARES[method])
            model = _load_model(base, torch.float32, random=method == "scratch")
        _check_lengths(rows, model)
        plan = make_plan(model, rows, settings, device)
        # 3. Train.
        reporter = _train(
            model.to(device),
            rows,
            validation,
            settings,
            plan,
            on_progress,
            seed=seed,
            rate=beginning.rate,
            folder=checkpoints,
        )
    card = AdapterCard(
        name=name,
        base_model=base.name,
        base_sha256=base.sha256,
        weights_sha256="",  # filled in by the registry
        prompt_version=PROMPT_VERSION,
        dataset=data.name,
        dataset_hash=data.hash,
        num_examples=len(rows),
        method=method,
        settings={
            **beginning.noted(),
            "epochs": settings.epochs,
            "train_tokens": settings.train_tokens,
            "max_email_tokens": settings.max_email_tokens,
            "field_weights": dict(data.field_weights),
            "seed": seed,
            "steps": reporter.steps,
            "stopped_early": reporter.steps < reporter.total_steps,
            "num_tokens": sum(len(row) for row in rows),
            "num_validation": len(validation),
            "pack_tokens": plan.pack_tokens,
            "activation_checkpointing": plan.checkpointing,
            "device": describe(device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "seconds": round(time.monotonic() - started - reporter.waited, 1),
        },
        scores=reporter.scores(),
        created_at=datetime.now(UTC),
    )
    # 4. Write.
    if method != "lora":
        return _write_whole(output_dir, model, tokenizer, card)
    weights, config = adapter_parts(model)
    # In bfloat16: half the size, and what will be judged and served is what is stored.
    weights = {key: tensor.to(torch.bfloat16) for key, tensor in weights.items()}
    return write_adapter(output_dir, weights=weights, config=config, card=card)


# --- the run


def answer_loss(model: Any, batch: Mapping[str, Any]) -> Tensor:
    """Mean of the fields' losses in a pack (see training.rows.pack); a field's loss is the mean of its tokens'."""
    # The embedding's: that of the frozen base. The float32 LoRA weights beside a bfloat16 base compute in bfloat16.
    dtype = next(model.parameters()).dtype
    with torch.autocast(batch["input_ids"].device.type, dtype, enabled=dtype != torch.float32):
        output = model(
            input_ids=batch["input_ids"],
            position_ids=batch["position_ids"],
            segments=batch["segments"],
            # A GPU is idle between small pieces of work; a CPU is not, and padding would cost it.
            layouts={} if batch["input_ids"].is_cuda else None,
            use_cache=False,
            logits_to_keep=batch["places"],
        )
    losses = torch.nn.functional.cross_entropy(output.logits[0].float(), batch["targets"], reduction="none")
    share: Tensor = batch["weights"]
    return (losses * share).sum() / share.sum()


class _AnswerTrainer(Trainer):  # type: ignore[misc]  # transformers ships no types that mypy can follow
    """transformers' loop with our packs, our loss and a schedule that wastes no step."""

    def __init__(self, rows: Sequence[Row], validation: Sequence[Row], plan: Plan, **options: Any) -> None:
        super().__init__(train_dataset=list(rows), eval_dataset=list(validation), **options)
        self.model_accepts_loss_kwargs = (
            False  # our loss is a mean: the loop divides it by the packs of a step
        )
        self._plan = plan
        self.last_loss = torch.tensor(0.0)

    def get_train_dataloader(self) -> Any:
        batches = Batches(self.train_dataset, self._plan.pack_tokens, seed=self.args.seed)
        return self.accelerator.prepare(
            DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=pack)
        )

    def compute_loss(self, model: Any, inputs: dict[str, Any], **_: Any) -> Tensor:
        loss = answer_loss(model, inputs)
        self.last_loss = loss.detach()
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The loss on the validation part, each field of each example alike."""
        self.model.eval()
        total = values = 0.0
        with torch.no_grad():
            for numbers in Batches(self.eval_dataset, self._plan.pack_tokens, seed=0, shuffled=False):
                batch = self._prepare_inputs(pack([self.eval_dataset[number] for number in numbers]))
                weight = float(batch["weights"].sum())
                total, values = total + float(answer_loss(self.model, batch)) * weight, values + weight
        self.model.train()
        metrics = {"eval_loss": total / values}
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

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
        self.validation: list[float] = []
        self.steps = self.total_steps = 0
        self.waited = 0.0  # time that the callback took: it may stand aside for mail
        self._on_progress = on_progress
        self._started = self._saved = time.monotonic()
        self._first = 0

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._first, self.total_steps = state.global_step, state.max_steps
        self._started = time.monotonic()
        self._tell(state)

    def on_substep_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._tell(state)

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.trainer is not None
        loss = float(self.trainer.last_loss)
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} at step {state.global_step} of {state.max_steps}, so this run is worth nothing. Lower BRIEFBOX_LEARNING_RATE and train again."
            )
        self.losses.append(loss)
        self.steps = state.global_step
        if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            control.should_save = True
        self._tell(state)

    def on_save(self, *_: Any, **__: Any) -> None:
        self._saved = time.monotonic()

    def on_evaluate(self, _args: Any, _state: Any, _control: Any, metrics: Any = None, **_: Any) -> None:
        self.validation.append(metrics["eval_loss"])

    def scores(self) -> dict[str, float]:
        """What the card says about the run itself."""
        scores = {"loss_last_step": self.losses[-1]} if self.losses else {}
        if self.losses and not self._first:
            scores["loss_first_step"] = self.losses[0]
        if self.validation:
            scores["validation_loss_best"] = min(self.validation)
            scores["validation_loss_last"] = self.validation[-1]
        return scores

    def _tell(self, state: Any) -> None:
        seconds = time.monotonic() - self._started - self.waited
        done = state.global_step - self._first
        left = seconds / done * (state.max_steps - state.global_step) if done else None
        loss = self.losses[-1] if self.losses else None
        before = time.monotonic()
        self._on_progress(TrainingProgress(state.global_step, state.max_steps, loss, seconds, left))
        self.waited += time.monotonic() - before


def _train(
    model: Any,
    rows: Sequence[Row],
    validation: Sequence[Row],
    settings: Settings,
    plan: Plan,
    on_progress: ProgressCallback,
    *,
    seed: int,
    rate: float,
    folder: Path | None,
) -> _Reporter:
    on_cpu = model.device.type == "cpu"
    steps = math.ceil(len(Batches(rows, plan.pack_tokens, seed=seed)) / plan.packs_per_step)
    every = max(1, steps // EVALUATIONS_PER_EPOCH)
    with TemporaryDirectory(prefix="briefbox-train-") as scratch:
        arguments = TrainingArguments(
            output_dir=str(folder or scratch),
            num_train_epochs=settings.epochs,
            gradient_accumulation_steps=plan.packs_per_step,
            learning_rate=rate,
            weight_decay=0.0,
            max_grad_norm=MAX_GRADIENT_NORM,
            # Activations of the layers are computed again instead of kept, where they would not fit.
            activation_checkpointing=plan.checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False},
            seed=seed,
            use_cpu=on_cpu,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            eval_strategy="steps" if validation else "no",
            eval_steps=every,
            save_strategy="steps" if validation or folder else "no",
            save_steps=every,
            save_total_limit=2,
            load_best_model_at_end=bool(validation),
            metric_for_best_model="loss" if validation else None,
            greater_is_better=False,
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        # With several GPUs in sight the trainer would split a batch among them; a pack can't be split. Reading `device`
        # counts them, and comes first.
        if arguments.device.type == "cuda":
            arguments._n_gpu = 1
        reporter = _Reporter(on_progress)
        stopping = [EarlyStoppingCallback(early_stopping_patience=PATIENCE)] if validation else []
        trainer = _AnswerTrainer(
            rows, validation, plan, model=model, args=arguments, callbacks=[reporter, *stopping]
        )
        trainer.remove_callback(PrinterCallback)  # it prints to stdout
        reporter.trainer = trainer
        checkpoint = last_checkpoint(folder) if folder else None
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return reporter


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`. One that a kill cut short is passed over."""
    found: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        # The state is what the trainer writes last.
        with suppress(OSError, ValueError, KeyError):
            found.append((int(json.loads((path / STATE_FILE).read_text())["global_step"]), path))
    return max(found)[1] if found else None


def _write_whole(folder: Path, model: Any, tokenizer: Any, card: AdapterCard) -> AdapterCard:
    """A whole model as transformers saves it, under a temporary name and then renamed; the card beside it."""
    if folder.exists():
        raise TrainingError(f"{folder} exists already; a model is never overwritten, choose another name.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(
            prefix=f".{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True
        ) as name:
            temporary = Path(name) / folder.name
            # With an attention that every transformers knows, and half the size.
            model.config._attn_implementation = "sdpa"
            model.to(torch.bfloat16).save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            found = file_sha256(temporary / "model.safetensors")
            card = card.model_copy(update={"weights_sha256": found})
            write_card(temporary, card)
            publish_folder(temporary, folder)
    except OSError as error:
        raise TrainingError(
            f"The model could not be written to {folder} ({error.strerror}); make room in BRIEFBOX_DATA_DIR."
        ) from error
    return card


# --- base model and LoRA


def _load_tokenizer(base: BaseModel) -> Any:
    try:
        return AutoTokenizer.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unusable(base, error) from error


def _load_model(base: BaseModel, dtype: torch.dtype, *, random: bool = False) -> Any:
    try:
        with quiet_transformers():
            if random:
                config = AutoConfig.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
                return AutoModelForCausalLM.from_config(
                    config, dtype=dtype, attn_implementation=attention.NAME, trust_remote_code=False
                )
            return AutoModelForCausalLM.from_pretrained(
                base.path,
                dtype=dtype,
                use_safetensors=True,
                attn_implementation=attention.NAME,
                local_files_only=True,
                trust_remote_code=False,
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unusable(base, error) from error


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where the weights stand before the first step, and how fast they may leave."""

    rate: float
    rank: int = 0  # of LoRA; 0 where all weights are trained
    adapter: VerifiedAdapter | None = None

    def noted(self) -> dict[str, float | str]:
        """What the card keeps of it."""
        rate: dict[str, float | str] = {"learning_rate": self.rate}
        if not self.rank:
            return rate
        return {
            "lora_rank": self.rank,
            "lora_alpha": self.rank * ALPHA_PER_RANK,
            "start": self.adapter.card.name if self.adapter else "",
            "start_sha256": self.adapter.card.weights_sha256 if self.adapter else "",
            **rate,
        }


def _beginning(base: BaseModel, settings: Settings, start: Path | None) -> Beginning:
    """LoRA's: fresh weights, or those of the adapter in the folder `start`, whose rank then holds."""
    if start is None:
        return Beginning(settings.learning_rate * RATE_SHARES["lora"], settings.lora_rank)
    adapter = verify_adapter(start, base)
    return Beginning(settings.learning_rate * START_RATE_SHARE, int(adapter.config["r"]), adapter)


def _add_lora(model: Any, beginning: Beginning) -> Any:
    """LoRA on every linear layer but the output: more layers at a low rank learn better than few at a high one.

    Fresh, or with the weights of the beginning's adapter, in whose layers it then is.
    """
    begin = beginning.adapter
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=beginning.rank,
        lora_alpha=beginning.rank * ALPHA_PER_RANK if begin is None else begin.config["lora_alpha"],
        lora_dropout=0.0,
        target_modules="all-linear" if begin is None else begin.config["target_modules"],
    )
    with quiet_peft():
        # LoRA weights are float32 even where the frozen base is bfloat16: small updates would be rounded away.
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
        if begin is not None:
            set_peft_model_state_dict(adapted, dict(begin.weights))
    # peft would turn every layer's input into float32 for them, and autograd would keep the copies: a fifth more time
    # and a third more memory. `answer_loss` turns the few LoRA weights into bfloat16 instead.
    for module in adapted.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False
    return adapted


def _check_lengths(rows: Sequence[Row], model: Any) -> None:
    context = getattr(model.config, "max_position_embeddings", None)
    longest = max(len(row) for row in rows)
    if context and longest > context:
        raise TrainingError(
            f"The longest of {len(rows)} examples has {longest} tokens, but the base model reads {context}; lower BRIEFBOX_MAX_EMAIL_TOKENS or use a base model with a longer context."
        )


def _unusable(base: BaseModel, error: Exception) -> ModelError:
    return ModelError(
        f"The base model in {base.path} cannot be loaded ({error}); set BRIEFBOX_BASE_MODEL to `packaged` or to a whole causal language model that transformers knows."
    )


@contextmanager
def _memory_errors() -> Iterator[None]:
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
