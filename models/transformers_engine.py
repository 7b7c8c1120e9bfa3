"""The engine on torch and transformers: a batch of requests becomes a batch of briefs.

group by categories, sort by length
  -> one shared prefill (the instructions' part computed once per adapter and category list)
  -> priority scored and appended -> category scored and appended
  -> headline decoded -> summary decoded, all in the same cache; a line with facts that the email
     does not hold is written once more under a rule
  -> plain, grounded text (models.brief)
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from briefbox.errors import AdapterError, ModelError, OutOfMemoryError
from briefbox.schemas import AdapterCard, Brief, BriefField, BriefRequest, LabelScore, Provenance
from briefbox.settings import Settings
from models import attention
from models.adapters import Adapters
from models.base import BaseModel, resolve_base_model
from models.brief import Draft, finish
from models.calibrate import content_free, prior
from models.constrain import Figures, OnlyFacts
from models.decode import Line, decode_line
from models.device import choose_device, choose_dtype, describe, set_threads
from models.doubt import thresholds
from models.grounding import Evidence
from models.labels import choose, score_labels
from models.linear import pack_linears
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
from models.registry import card_of_model, verify_adapter
from models.session import Prefix, Session, compute_prefix

log = logging.getLogger(__name__)

# Prepared category lists kept; each takes about 5 MB for the packaged model.
MAX_PREPARED = 16
# Tokens that the instructions, the categories and the answer's frame need beside the email.
RESERVED_TOKENS = 1000
# Of the answer: labels and field names.
FRAME_TOKENS = 32
# A headline or a summary of fewer tokens is none.
LEAST_TOKENS = 3


@dataclass(frozen=True, slots=True)
class Prepared:
    """What all prompts with the same categories and adapter share."""

    prefix: Prefix
    # Log-probabilities of the labels [labels] when there is nothing to judge; none where it was trained.
    priors: dict[BriefField, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that are computed together: the same categories, the same adapter."""

    requests: list[BriefRequest]
    prompts: list[EncodedPrompt]
    adapter: str


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
        set_threads(settings)
        self.dtype = dtype or choose_dtype(self.device, settings)
        self.tokenizer, self.model = _load(self.base, self.dtype, self.device)
        _check_length(settings, self.model)
        pack_linears(self.model)
        self._adapters = Adapters(self.model)
        own = card_of_model(self.base.path)
        self._cards: dict[str, AdapterCard] = {"": own} if own is not None else {}
        self._stop = _stop_mask(self.tokenizer, self.model)
        self._prepared: dict[tuple[str, tuple[int, ...]], Prepared] = {}
        self.clock: dict[str, float] = {}  # seconds since the start by part: prefill, labels, decode

    @property
    def base_model(self) -> str:
        """See Engine."""
        return self.base.name

    @property
    def adapters(self) -> tuple[str, ...]:
        """See Engine."""
        return self._adapters.names

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[Brief]:
        """See Engine. At most BRIEFBOX_BATCH_SIZE emails and BRIEFBOX_MAX_BATCH_TOKENS are computed at once."""
        if adapter and adapter not in self.adapters:
            raise AdapterError(
                f"The adapter {adapter} is not resident, expected one of: {', '.join(self.adapters) or 'none'}. Load it first."
            )
        settings = self.settings
        prompts = [encode_prompt(self.tokenizer, r, settings.max_email_tokens) for r in requests]
        briefs: dict[int, Brief] = {}
        with _memory_errors(len(requests)), torch.inference_mode(), self._adapters.use(adapter):
            for numbers in batches(prompts, settings.batch_size, settings.max_batch_tokens, self._answer):
                batch = Batch(
                    requests=[requests[number] for number in numbers],
                    prompts=[prompts[number] for number in numbers],
                    adapter=adapter,
                )
                briefs.update(zip(numbers, self._brief_batch(batch), strict=True))
        return [briefs[number] for number in range(len(requests))]

    def load_adapter(self, path: Path, name: str = "", expected_sha256: str | None = None) -> str:
        """See Engine."""
        adapter = verify_adapter(path, self.base, expected_sha256)
        name = name or adapter.card.name
        self._adapters.attach(adapter, name)
        self._cards[name] = adapter.card
        self._forget(name)
        log.info("adapter %s is resident", name)
        return name

    def drop_adapter(self, name: str) -> None:
        """See Engine."""
        self._adapters.drop(name)
        self._cards.pop(name, None)
        self._forget(name)

    def warm_up(self) -> None:
        """See Engine."""
        self.brief([BriefRequest(subject="Hello", sender="warm-up", text="Is this on?", categories=())])

    # --- one batch

    def _brief_batch(self, batch: Batch) -> list[Brief]:
        """Briefs of requests that share their categories."""
        started = time.monotonic()
        deadline = started + self.settings.batch_timeout_seconds
        marks = [("", started)]
        prepared = self._prepare(batch)
        columns = max(len(prompt.own) for prompt in batch.prompts) + self._answer
        session = Session(self.model, prepared.prefix, len(batch.requests), columns)
        # 1. Labels: each is scored where it would be written, then written.
        prefix = encode_prefix(self.tokenizer, "category")
        at = session.append([prompt.own + prefix for prompt in batch.prompts])
        marks.append(("prefill", time.monotonic()))
        categories = self._choose(session, at, "category", batch, prepared)
        at = session.append(self._written("category", categories, "priority"))
        priorities = self._choose(session, at, "priority", batch, prepared)
        at = session.append(self._written("priority", priorities, "headline"))
        labelled = time.monotonic()
        marks.append(("labels", labelled))
        # 2. Text.
        evidence = [Evidence(request) for request in batch.requests]
        limits = self.settings.max_headline_tokens, self.settings.max_summary_tokens
        headlines = self._decode(session, at, limits[0], batch, evidence, deadline)
        between = encode_terminator(self.tokenizer, "headline") + encode_prefix(self.tokenizer, "summary")
        at = session.append([(*headlines[row].pending, *between) for row in session.rows])
        summaries = self._decode(session, at, limits[1], batch, evidence, deadline)
        ended = time.monotonic()
        self._count([*marks, ("decode", ended)])
        # 3. Briefs.
        limit_of = thresholds(self.settings, self._cards.get(batch.adapter))
        share = 1 / len(batch.requests)
        return [
            finish(
                Draft(
                    headline=self._text(headlines[row]),
                    headline_ended=headlines[row].ended,
                    summary=self._text(summaries[row]),
                    summary_ended=summaries[row].ended,
                    priority=priorities[row],
                    category=categories[row],
                    omitted=batch.prompts[row].omitted,
                    provenance=Provenance(
                        engine=self.name,
                        base_model=self.base_model,
                        base_revision=self.base.revision,
                        adapter=batch.adapter,
                        prompt_version=PROMPT_VERSION,
                        tokens_in=len(batch.prompts[row].ids),
                        tokens_cached=prepared.prefix.num_tokens,
                        tokens_out=len(headlines[row].ids) + len(summaries[row].ids),
                        seconds=(ended - started) * share,
                        prefill_seconds=(labelled - started) * share,
                        decode_seconds=(ended - labelled) * share,
                        batch_size=len(batch.requests),
                        device=describe(self.device),
                    ),
                ),
                request,
                limit_of,
                evidence[row],
            )
            for row, request in enumerate(batch.requests)
        ]

    def _choose(
        self, session: Session, at: Tensor, name: BriefField, batch: Batch, prepared: Prepared
    ) -> list[LabelScore]:
        """Each row's label of field `name`, scored behind the logits `at`."""
        request = batch.requests[0]
        scores = self._score(session, at, name, request)
        if name in prepared.priors:
            scores = scores - prepared.priors[name]
        card = self._cards.get(batch.adapter)
        temperature = card.temperatures.get(name, 1.0) if card else 1.0
        return [choose(allowed_labels(name, request), row, temperature) for row in scores.cpu()]

    def _score(self, session: Session, at: Tensor, name: BriefField, request: BriefRequest) -> Tensor:
        """Log-probabilities of the allowed labels, float32 [rows, labels]."""
        ids = [encode_value(self.tokenizer, name, label) for label in allowed_labels(name, request)]
        return score_labels(session, at, ids)

    def _written(self, name: BriefField, chosen: list[LabelScore], then: BriefField) -> list[tuple[int, ...]]:
        """Each row's chosen label as written text, and the next field's prefix."""
        after = encode_prefix(self.tokenizer, then)
        return [encode_value(self.tokenizer, name, score.label) + after for score in chosen]

    def _decode(
        self,
        session: Session,
        at: Tensor,
        limit: int,
        batch: Batch,
        evidence: Sequence[Evidence],
        deadline: float,
    ) -> dict[int, Line]:
        """One line of every row. A line with facts that its email does not hold gets one more try without them."""
        rows, starts = session.rows, dict(enumerate(session.lengths))
        first = at.clone()
        options: dict[str, Any] = {
            "stop": self._stop,
            "limit": limit,
            "least": LEAST_TOKENS,
            "deadline": deadline,
        }
        lines = decode_line(session, at, **options)
        wrong = {row: missing for row in rows if (missing := evidence[row].missing(self._text(lines[row])))}
        if not wrong or time.monotonic() > deadline:
            return lines
        rules = {row: OnlyFacts(self._figures, batch.requests[row], wrong[row]) for row in wrong}
        session.rewind({row: starts[row] for row in wrong})
        session.focus(wrong)
        at = first[[rows.index(row) for row in session.rows]]
        again = decode_line(session, at, **options, rules=rules)
        session.focus(rows)
        return lines | again

    def _count(self, marks: Sequence[tuple[str, float]]) -> None:
        for (_, before), (part, after) in pairwise(marks):
            self.clock[part] = self.clock.get(part, 0.0) + after - before

    def _text(self, line: Line) -> str:
        text: str = self.tokenizer.decode(
            line.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    @property
    def _answer(self) -> int:
        """Most tokens of an answer, its frame included."""
        return self.settings.max_headline_tokens + self.settings.max_summary_tokens + FRAME_TOKENS

    @cached_property
    def _figures(self) -> Figures:
        return Figures(self.tokenizer, len(self._stop))

    # --- once per adapter and category list

    def _prepare(self, batch: Batch) -> Prepared:
        key = batch.adapter, batch.prompts[0].shared
        if key not in self._prepared:
            if len(self._prepared) >= MAX_PREPARED:
                del self._prepared[next(iter(self._prepared))]
            prefix = compute_prefix(self.model, key[1])
            # What was trained on these questions, as an adapter or as a whole, has no habit to divide out.
            trained = batch.adapter in self._cards
            priors = {} if trained else self._priors(prefix, batch.requests[0])
            self._prepared[key] = Prepared(prefix, priors)
        return self._prepared[key]

    def _forget(self, adapter: str) -> None:
        """Drop what was prepared with an adapter's earlier weights."""
        self._prepared = {key: value for key, value in self._prepared.items() if key[0] != adapter}

    def _priors(self, prefix: Prefix, request: BriefRequest) -> dict[BriefField, Tensor]:
        """See models.calibrate."""
        tokenizer = self.tokenizer
        prompts = [encode_prompt(tokenizer, r, self.settings.max_email_tokens) for r in content_free(request)]
        session = Session(self.model, prefix, len(prompts))
        at = session.append([p.own + encode_prefix(tokenizer, "category") for p in prompts])
        category = prior(self._score(session, at, "category", request))
        # The priority is written behind a category. Its prior is taken behind the last one, mostly a catch-all.
        last = allowed_labels("category", request)[-1]
        written = encode_value(tokenizer, "category", last) + encode_prefix(tokenizer, "priority")
        at = session.append([written] * len(prompts))
        return {"category": category, "priority": prior(self._score(session, at, "priority", request))}


def _load(base: BaseModel, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_transformers(), _memory_errors(0):
            tokenizer = AutoTokenizer.from_pretrained(base.path, **local)
            model = AutoModelForCausalLM.from_pretrained(
                base.path, dtype=dtype, use_safetensors=True, attn_implementation=attention.NAME, **local
            )
            return tokenizer, model.to(device).eval().requires_grad_(requires_grad=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"The base model in {base.path} cannot be loaded ({error}); set BRIEFBOX_BASE_MODEL to `packaged` or to a whole causal language model that transformers knows."
        ) from error


def _check_length(settings: Settings, model: Any) -> None:
    attention.check_supported(model.config, settings.max_email_tokens + RESERVED_TOKENS)
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


def batches(prompts: Sequence[EncodedPrompt], size: int, max_tokens: int, answer: int) -> Iterator[list[int]]:
    """Numbers of prompts to compute together: the same categories and similar lengths.

    A batch has at most `size` rows, and at most `max_tokens` in its cache, where every row takes as much as
    the longest one and `answer` tokens; one row is always allowed.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for number in sorted(range(len(prompts)), key=lambda n: len(prompts[n].own)):
        groups.setdefault(prompts[number].shared, []).append(number)
    for group in groups.values():
        batch: list[int] = []
        for number in group:
            needed = (len(batch) + 1) * (len(prompts[number].own) + answer)
            if batch and (len(batch) == size or needed > max_tokens):
                yield batch
                batch = []
            batch.append(number)
        yield batch


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
