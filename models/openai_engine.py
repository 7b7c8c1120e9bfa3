"""The engine on any OpenAI-compatible server: vLLM, llama.cpp's server, TGI or a hosted service.

one chat completion for each email, several at once
  -> JSON after a schema whose priority and category are the allowed labels
  -> confidence from the tokens' log-probabilities (models.openai_labels), where the server gives them
  -> facts that the email does not hold: one more request that forbids them
  -> plain, grounded text (models.brief)
"""

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from briefbox.errors import AdapterError, ModelError, ServerAwayError
from briefbox.schemas import AdapterCard, Brief, BriefRequest, Provenance
from briefbox.settings import Settings
from models.adapter_checks import check_card
from models.brief import Draft, finish
from models.doubt import thresholds
from models.openai_chat import Abilities, Chat
from models.openai_client import Client
from models.openai_writer import Job, Writer, Written
from models.prompt import PROMPT_VERSION
from models.registry import WEIGHTS_FILE, read_card
from models.sums import file_sha256
from models.text import shorten

log = logging.getLogger(__name__)

# A server that is not there is not waited for at the start: whoever started briefbox is looking at it.
WARM_UP_SECONDS = 10.0
# Briefs of a failed batch that wait to be asked for again.
MAX_KEPT = 512


class OpenAIEngine:
    """See models.engine.Engine. Itself used by one thread; its requests run in threads of their own."""

    name = "openai"

    def __init__(self, settings: Settings) -> None:
        """Nothing is asked yet. Raises ModelError when the address or the key cannot be used."""
        self.settings = settings
        self.client = Client(settings)
        self._model = settings.openai_model
        self._cards: dict[str, AdapterCard] = {}
        self._writer = Writer(settings, Chat(self.client))
        # Briefs of a batch in which another email failed: they were paid for, and are asked for again at once.
        self._kept: dict[tuple[str, BriefRequest], Brief] = {}

    @property
    def base_model(self) -> str:
        """The server's name of the model; "" until the server was asked, where no setting names one."""
        return self._model

    @property
    def abilities(self) -> Abilities:
        """What the server takes, as far as it is known."""
        return self._writer.chat.abilities

    @property
    def adapters(self) -> tuple[str, ...]:
        """See Engine."""
        return tuple(self._cards)

    def brief(self, requests: Sequence[BriefRequest], adapter: str = "") -> list[Brief]:
        """See Engine. When an email fails, what the others have cost is not lost: their briefs are kept for the next call."""
        if adapter and adapter not in self._cards:
            raise AdapterError(
                f"The adapter {adapter} is not resident, expected one of: {', '.join(self.adapters) or 'none'}. Load it first."
            )
        self._choose_model()
        found = {n: self._kept[adapter, r] for n, r in enumerate(requests) if (adapter, r) in self._kept}
        wanted = {number: request for number, request in enumerate(requests) if number not in found}
        try:
            self._brief_all(wanted, adapter, found)
        except ModelError:
            for number, brief in found.items():
                self._kept[adapter, requests[number]] = brief
            for key in list(self._kept)[:-MAX_KEPT]:
                del self._kept[key]
            raise
        for request in requests:
            self._kept.pop((adapter, request), None)
        return [found[number] for number in range(len(requests))]

    def load_adapter(self, path: Path, name: str = "", expected_sha256: str | None = None) -> str:
        """See Engine. Checks our copy of the adapter, and that the server lists a model of its name.

        What the server itself has loaded under that name cannot be seen from here. Raises ServerAwayError, too.
        """
        card = read_card(path)
        check_card(card)
        if card.prompt_version != PROMPT_VERSION:
            raise AdapterError(
                f"The adapter {card.name} was trained with prompt {card.prompt_version}, but this version of briefbox asks with {PROMPT_VERSION}; train again."
            )
        _check_sum(path / WEIGHTS_FILE, card, expected_sha256)
        name = name or card.name
        deadline = time.monotonic() + self.settings.openai_timeout_seconds
        try:
            listed = [str(entry["id"]) for entry in self.client.models(deadline)]
        except ServerAwayError:
            raise  # says nothing about the adapter
        except ModelError as error:
            raise AdapterError(f"The adapter {name} cannot be used: {error}") from error
        if name not in listed:
            raise AdapterError(
                f"The model server at {self.client.host} lists no model {name}, only {shorten(', '.join(listed), 200) or 'none'}; start it with the adapter: vllm serve MODEL --enable-lora --lora-modules {name}={path}"
            )
        self._cards[name] = card
        self._kept = {}
        log.info("adapter %s is served by %s", name, self.client.host)
        return name

    def drop_adapter(self, name: str) -> None:
        """See Engine. The server keeps it; it is only asked for no more."""
        self._cards.pop(name, None)
        self._kept = {}

    def warm_up(self) -> None:
        """Ask which models there are. Raises ModelError when the server is away, refuses the key or lists none."""
        self._model = self.settings.openai_model
        self._choose_model(always=True)

    # --- a batch

    def _choose_model(self, *, always: bool = False) -> None:
        if self._model and not always:
            return
        seconds = min(self.settings.openai_timeout_seconds, WARM_UP_SECONDS)
        listed = self.client.models(time.monotonic() + seconds)
        if not listed:
            raise ModelError(
                f"The model server at {self.client.host} lists no models; start it with one, see docs/engines.md."
            )
        names = [str(entry["id"]) for entry in listed]
        # vLLM lists adapters too: they have a parent.
        own = [str(entry["id"]) for entry in listed if not entry.get("parent")]
        if self._model and self._model not in names:
            log.warning(
                "%s does not list the model %s, only %s", self.client.host, self._model, ", ".join(names)
            )
        self._model = self._model or (own or names)[0]

    def _brief_all(self, requests: Mapping[int, BriefRequest], adapter: str, found: dict[int, Brief]) -> None:
        """Put briefs into `found` by number, all that went well, before the error of another email is raised."""
        if not requests:
            return
        started, away = time.monotonic(), Event()
        errors: list[ModelError] = []
        done: dict[int, tuple[Job, Written]] = {}
        with ThreadPoolExecutor(min(self.settings.openai_parallel, len(requests)), "openai") as threads:
            futures = {
                number: threads.submit(self._brief_one, request, adapter, started, away)
                for number, request in requests.items()
            }
            for number, future in futures.items():
                try:
                    done[number] = future.result()
                except ModelError as error:
                    errors.append(error)
        share = (time.monotonic() - started) / len(requests)
        for number, (job, written) in done.items():
            found[number] = self._finish(job, written, adapter, share, len(requests))
        if errors:
            # A server that is away explains them all.
            raise next((error for error in errors if isinstance(error, ServerAwayError)), errors[0])

    def _finish(self, job: Job, written: Written, adapter: str, share: float, batch_size: int) -> Brief:
        spent, values, ended = job.spent, written.answer.values, written.answer.ended
        computed = spent.prefill_ms + spent.decode_ms
        draft = Draft(
            headline=values.get("headline", ""),
            headline_ended="headline" in ended,
            summary=values.get("summary", ""),
            summary_ended="summary" in ended,
            priority=written.scores["priority"],
            category=written.scores["category"],
            omitted=written.question.omitted,
            provenance=Provenance(
                engine=self.name,
                base_model=self.base_model,
                adapter=adapter,
                prompt_version=PROMPT_VERSION if written.form == "lines" else f"{PROMPT_VERSION}-json",
                tokens_in=spent.tokens_in,
                tokens_cached=spent.tokens_cached,
                tokens_out=spent.tokens_out,
                seconds=share,
                prefill_seconds=share * spent.prefill_ms / computed if computed else 0.0,
                decode_seconds=share * spent.decode_ms / computed if computed else 0.0,
                batch_size=batch_size,
                device=self.client.host,
            ),
        )
        return finish(draft, job.request, thresholds(self.settings, job.card), job.evidence)

    # --- one email, in a thread

    def _brief_one(
        self, request: BriefRequest, adapter: str, started: float, away: Event
    ) -> tuple[Job, Written]:
        settings = self.settings
        if away.is_set():
            raise ServerAwayError(f"The model server at {self.client.host} is away; this email was not sent.")
        # Never longer than the batch may take: the worker ends a process that hangs.
        deadline = min(
            time.monotonic() + 3 * settings.openai_timeout_seconds, started + settings.batch_timeout_seconds
        )
        job = Job(
            request=request,
            model=adapter or self._model,
            card=self._cards.get(adapter),
            deadline=deadline,
            budget=settings.max_email_tokens,
        )
        try:
            return job, self._writer.write(job)
        except ServerAwayError:
            away.set()
            raise


def _check_sum(file: Path, card: AdapterCard, expected: str | None) -> None:
    try:
        found = file_sha256(file)
    except OSError as error:
        raise AdapterError(
            f"{file} cannot be read ({error.strerror}); restore the folder or train again."
        ) from error
    for source, wanted in (("its card", card.weights_sha256), ("the database", expected)):
        if wanted is not None and found != wanted:
            raise AdapterError(
                f"The weights of adapter {card.name} have sha256 {found[:12]}, but {source} says {wanted[:12]}; they were altered: restore the folder or train again."
            )
