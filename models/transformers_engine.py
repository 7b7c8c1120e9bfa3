"""The engine on torch and transformers: a batch of requests becomes a batch of briefs.

group by categories, sort by length
  -> one shared prefill (the instructions' part computed once per adapter and category list)
  -> priority scored and appended -> category scored and appended
  -> headline decoded -> summary decoded, all in the same cache
  -> plain text
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from briefbox.errors import AdapterError, ModelError, OutOfMemoryError
from briefbox.schemas import Brief, BriefField, BriefRequest, LabelScore, Provenance
from briefbox.settings import Settings
from models.adapters import AdapterSlot
from models.base import BaseModel, resolve_base_model
from models.calibrate import PRIOR_PRIORITY, content_free, prior
from models.compose import compose_headline, compose_summary
from models.decode import Line, decode_line
from models.device import choose_device, choose_dtype, describe
from models.labels import choose, score_labels
from models.prompt import (
    PROMPT_VERSION,
    EncodedPrompt,
    allowed_labels,
    encode_prefix,
    encode_prompt,
    encode_terminator,
    encode_value,
    special_ids,
)
from models.quiet import quiet_transformers
from models.registry import verify_adapter
from models.session import Prefix, Session, compute_prefix

log = logging.getLogger(__name__)

# Prepared category lists kept; each takes about 5 MB for the packaged model.
MAX_PREPARED = 16
# Tokens that the instructions, the categories and the answer need beside the email.
RESERVED_TOKENS = 1000


@dataclass(frozen=True, slots=True)
class Prepared:
    """What all prompts with the same categories share, under the adapter in use."""

    prefix: Prefix
    # Log-probabilities of the labels [labels] when there is nothing to judge; none under an adapter.
    priors: dict[BriefField, Tensor] = field(default_factory=dict)


class TransformersEngine:
    """See models.engine.Engine."""

    name = "transformers"

    def __init__(
        self, settings: Settings, base: BaseModel | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Load the base model. Raises ModelError when it, or the device, cannot be used."""
        self.settings = settings
        self.base = base or resolve_base_model(settings)
        self.device = choose_device(settings)
        self.dtype = dtype or choose_dtype(self.device)
        self.tokenizer, self.model = _load(self.base, self.dtype, self.device)
        _check_length(settings, self.model)
        self._slot = AdapterSlot(self.model)
        self._stop = _stop_mask(self.tokenizer, self.model)
        self._prepared: dict[tuple[int, ...], Prepared] = {}

    @property
    def base_model(self) -> str:
        """See Engine."""
        return self.base.name

    @property
    def adapter(self) -> str:
        """See Engine."""
        return self._slot.name

    def brief(self, requests: Sequence[BriefRequest]) -> list[Brief]:
        """See Engine. At most BRIEFBOX_BATCH_SIZE emails are computed at once."""
        prompts = [encode_prompt(self.tokenizer, r, self.settings.max_email_tokens) for r in requests]
        briefs: dict[int, Brief] = {}
        with _memory_errors(len(requests)), torch.inference_mode():
            for batch in _batches(prompts, self.settings.batch_size):
                made = self._brief_batch([requests[i] for i in batch], [prompts[i] for i in batch])
                briefs.update(zip(batch, made, strict=True))
        return [briefs[number] for number in range(len(requests))]

    def load_adapter(self, path: Path | None, name: str = "", expected_sha256: str | None = None) -> None:
        """See Engine."""
        if path is None:
            self._slot.detach()
        else:
            adapter = verify_adapter(path, self.base, expected_sha256)
            if adapter.card.prompt_version != PROMPT_VERSION:
                raise AdapterError(
                    f"The adapter {adapter.card.name} was trained with prompt {adapter.card.prompt_version}, but this version of briefbox asks with {PROMPT_VERSION}; train again."
                )
            self._slot.attach(adapter, name or adapter.card.name)
        self._prepared.clear()
        log.info(
            "the engine now uses %s", f"adapter {self.adapter}" if self.adapter else "the bare base model"
        )

    def warm_up(self) -> None:
        """See Engine."""
        self.brief([BriefRequest(subject="Hello", sender="warm-up", text="Is this on?", categories=())])

    # --- one batch

    def _brief_batch(self, requests: list[BriefRequest], prompts: list[EncodedPrompt]) -> list[Brief]:
        """Briefs of requests that share their categories."""
        started = time.monotonic()
        prepared = self._prepare(prompts[0].shared, requests[0])
        session = Session(self.model, prepared.prefix, len(requests))
        # 1. Labels: each is scored where it would be written, then written.
        at = session.append([p.own + encode_prefix(self.tokenizer, "priority") for p in prompts])
        priorities = self._choose(session, at, "priority", requests[0], prepared)
        at = session.append(self._written("priority", priorities, "category"))
        categories = self._choose(session, at, "category", requests[0], prepared)
        at = session.append(self._written("category", categories, "headline"))
        # 2. Text.
        limits = self.settings.max_headline_tokens, self.settings.max_summary_tokens
        headlines = decode_line(session, at, stop=self._stop, limit=limits[0])
        between = encode_terminator(self.tokenizer, "headline") + encode_prefix(self.tokenizer, "summary")
        at = session.append([(*line.pending, *between) for line in headlines])
        summaries = decode_line(session, at, stop=self._stop, limit=limits[1], last=True)
        # 3. Briefs.
        seconds = (time.monotonic() - started) / len(requests)
        return [
            Brief(
                headline=compose_headline(self._text(headlines[row]), request, ended=headlines[row].ended),
                summary=compose_summary(self._text(summaries[row]), request, ended=summaries[row].ended),
                priority=priorities[row],
                category=categories[row],
                cut=prompts[row].cut,
                provenance=Provenance(
                    engine=self.name,
                    base_model=self.base_model,
                    adapter=self.adapter,
                    prompt_version=PROMPT_VERSION,
                    tokens_in=len(prompts[row].ids),
                    tokens_out=len(headlines[row].ids) + len(summaries[row].ids),
                    seconds=seconds,
                    batch_size=len(requests),
                    device=describe(self.device),
                ),
            )
            for row, request in enumerate(requests)
        ]

    def _choose(
        self, session: Session, at: Tensor, name: BriefField, request: BriefRequest, prepared: Prepared
    ) -> list[LabelScore]:
        """Each row's label of field `name`, scored behind the logits `at`."""
        scores = self._score(session, at, name, request)
        if name in prepared.priors:
            scores = scores - prepared.priors[name]
        return [choose(allowed_labels(name, request), row) for row in scores.cpu()]

    def _score(self, session: Session, at: Tensor, name: BriefField, request: BriefRequest) -> Tensor:
        """Log-probabilities of the allowed labels, float32 [rows, labels]."""
        ids = [encode_value(self.tokenizer, name, label) for label in allowed_labels(name, request)]
        return score_labels(session, at, ids)

    def _written(self, name: BriefField, chosen: list[LabelScore], then: BriefField) -> list[tuple[int, ...]]:
        """Each row's chosen label as written text, and the next field's prefix."""
        after = encode_prefix(self.tokenizer, then)
        return [encode_value(self.tokenizer, name, score.label) + after for score in chosen]

    def _text(self, line: Line) -> str:
        text: str = self.tokenizer.decode(line.ids, skip_special_tokens=True)
        return text

    # --- once per adapter and category list

    def _prepare(self, shared: tuple[int, ...], request: BriefRequest) -> Prepared:
        if shared not in self._prepared:
            if len(self._prepared) >= MAX_PREPARED:
                del self._prepared[next(iter(self._prepared))]
            prefix = compute_prefix(self.model, shared)
            self._prepared[shared] = Prepared(prefix, {} if self.adapter else self._priors(prefix, request))
        return self._prepared[shared]

    def _priors(self, prefix: Prefix, request: BriefRequest) -> dict[BriefField, Tensor]:
        """See models.calibrate."""
        tokenizer = self.tokenizer
        prompts = [encode_prompt(tokenizer, r, self.settings.max_email_tokens) for r in content_free(request)]
        session = Session(self.model, prefix, len(prompts))
        at = session.append([p.own + encode_prefix(tokenizer, "priority") for p in prompts])
        priority = prior(self._score(session, at, "priority", request))
        written = encode_value(tokenizer, "priority", PRIOR_PRIORITY) + encode_prefix(tokenizer, "category")
        at = session.append([written] * len(prompts))
        return {"priority": priority, "category": prior(self._score(session, at, "category", request))}


def _load(base: BaseModel, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_transformers(), _memory_errors(0):
            tokenizer = AutoTokenizer.from_pretrained(base.path, **local)
            model = AutoModelForCausalLM.from_pretrained(
                base.path, dtype=dtype, use_safetensors=True, attn_implementation="sdpa", **local
            )
            return tokenizer, model.to(device).eval().requires_grad_(requires_grad=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"The base model in {base.path} cannot be loaded ({error}); set BRIEFBOX_BASE_MODEL to `packaged` or to a whole causal language model that transformers knows."
        ) from error


def _check_length(settings: Settings, model: Any) -> None:
    context = getattr(model.config, "max_position_embeddings", None)
    answer = settings.max_headline_tokens + settings.max_summary_tokens
    if context and settings.max_email_tokens + answer + RESERVED_TOKENS > context:
        raise ModelError(
            f"BRIEFBOX_MAX_EMAIL_TOKENS={settings.max_email_tokens} does not fit: the base model reads {context} tokens, of which the answer needs {answer} and the instructions up to {RESERVED_TOKENS}; set it to {max(context - answer - RESERVED_TOKENS, 0)} or less."
        )


def _stop_mask(tokenizer: Any, model: Any) -> Tensor:
    """Which ids end a line, bool [vocabulary]: line breaks in any form, special tokens, unused ids."""
    rows = model.get_output_embeddings().weight.shape[0]
    mask = torch.ones(rows, dtype=torch.bool)
    # Byte-level vocabularies write a line break as Ċ, others as itself or as <0x0A>.
    for token, number in tokenizer.get_vocab().items():
        mask[number] = any(mark in token for mark in ("Ċ", "\n", "<0x0A>"))
    mask[list(special_ids(tokenizer))] = True
    return mask.to(model.device)


def _batches(prompts: Sequence[EncodedPrompt], size: int) -> list[list[int]]:
    """Numbers of prompts to compute together: the same categories, similar lengths, at most `size`."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number in sorted(range(len(prompts)), key=lambda n: len(prompts[n].own)):
        groups.setdefault(prompts[number].shared, []).append(number)
    return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]


@contextmanager
def _memory_errors(num_emails: int) -> Iterator[None]:
    """Turn every way in which torch says `out of memory` into OutOfMemoryError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # On the CPU torch raises a plain RuntimeError from its allocator.
        if type(error) is RuntimeError and "not enough memory" not in str(error):
            raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise OutOfMemoryError(
            f"A batch of {num_emails} emails does not fit into memory; lower BRIEFBOX_BATCH_SIZE or BRIEFBOX_MAX_EMAIL_TOKENS."
        ) from error
