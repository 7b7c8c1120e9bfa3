"""One email at an OpenAI-compatible server: ask, read the answer, and ask once more where it cannot be used.

A second request is made for at most one of each: labels that are not allowed, an email that is too long for the
server, facts that the email does not hold.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from briefbox.errors import ModelError
from briefbox.schemas import AdapterCard, BriefField, BriefRequest, LabelScore
from briefbox.settings import Settings
from models import openai_labels
from models.grounding import Evidence
from models.openai_chat import Chat, Spent, UnusableError
from models.openai_client import TooLongError
from models.openai_text import Answer, AnswerForm, Question, ask, escape, match_label, read_answer
from models.prompt import allowed_labels
from models.text import one_line, shorten

log = logging.getLogger(__name__)

# The answer's field names, labels and quotes, beside headline and summary.
FRAME_TOKENS = 80
# An email that the server finds too long is tried once more with this part of BRIEFBOX_MAX_EMAIL_TOKENS.
HARDER_SHARE = 1 / 3
MAX_FORBIDDEN = 10
MAX_FORBIDDEN_CHARS = 60
LABELLED: tuple[BriefField, ...] = ("priority", "category")


@dataclass
class Job:
    """One email on its way. `model` is the server's name of the base model or of an adapter, which has a card."""

    request: BriefRequest
    model: str
    card: AdapterCard | None
    deadline: float  # a time.monotonic()
    budget: int  # tokens of email text
    spent: Spent = field(default_factory=Spent)

    @cached_property
    def evidence(self) -> Evidence:
        """What the email holds."""
        return Evidence(self.request)

    @cached_property
    def labels(self) -> Mapping[BriefField, tuple[str, ...]]:
        """The allowed labels of priority and category."""
        return {name: allowed_labels(name, self.request) for name in LABELLED}

    @property
    def form(self) -> AnswerForm:
        """An adapter is asked in the form in which it was trained."""
        return "lines" if self.card else "json"


@dataclass(frozen=True, slots=True)
class Written:
    """An answer that can be used."""

    answer: Answer
    scores: Mapping[BriefField, LabelScore]
    question: Question
    form: AnswerForm

    @property
    def text(self) -> str:
        """Headline and summary, for a check against the email."""
        return f"{self.answer.values.get('headline', '')}\n{self.answer.values.get('summary', '')}"


class Writer:
    """Turns jobs into answers that can be used; for many threads at once."""

    def __init__(self, settings: Settings, chat: Chat) -> None:
        """Nothing is asked yet."""
        self.settings, self.chat = settings, chat

    def write(self, job: Job) -> Written:
        """An answer with allowed labels and, where a second try helps, without invented facts.

        Raises ModelError; ServerAwayError is one of them.
        """
        written = self._with_labels(job)
        missing = [str(fact) for fact in job.evidence.missing(written.text)]
        return self._without_facts(job, written, missing) if missing else written

    def _with_labels(self, job: Job) -> Written:
        try:
            return self._read(job, job.form)
        except UnusableError as error:
            log.info("asking again: %s", error)
        rules = " ".join(f"{name} is one of: {escape('; '.join(job.labels[name]))}." for name in LABELLED)
        return self._read(job, "json", f"Answer with JSON only. {rules}", times=2)

    def _without_facts(self, job: Job, written: Written, missing: Sequence[str]) -> Written:
        """One more try that forbids facts which the email does not hold. The better of both is returned."""
        facts = (shorten(escape(fact), MAX_FORBIDDEN_CHARS) for fact in missing[:MAX_FORBIDDEN])
        reason = f"Do not write any of these, because the email does not say them: {'; '.join(facts)}."
        try:
            again = self._read(job, written.form, reason)
        except ModelError as error:
            log.info("no second try without invented facts: %s", error)
            return written
        return again if len(job.evidence.missing(again.text)) < len(missing) else written

    def _read(self, job: Job, form: AnswerForm, reason: str = "", times: int = 1) -> Written:
        """Ask once; an email that is too long for the server is asked about once more, cut harder."""
        try:
            return self._read_once(job, form, reason, times)
        except TooLongError:
            harder = max(int(self.settings.max_email_tokens * HARDER_SHARE), 1)
            if job.budget == harder:
                raise
            job.budget = harder
            return self._read_once(job, form, reason, times)

    def _read_once(self, job: Job, form: AnswerForm, reason: str, times: int) -> Written:
        settings, question = self.settings, ask(job.request, job.budget, form)
        limit = settings.max_headline_tokens + settings.max_summary_tokens + FRAME_TOKENS
        choice = self.chat.ask(
            question.because(reason) if reason else question,
            job.spent,
            model=job.model,
            labels=job.labels if form == "json" else None,
            max_tokens=limit * times,
            deadline=job.deadline,
        )
        message = choice.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        cut_off = choice.get("finish_reason") == "length"
        if not isinstance(content, str) or not content.strip():
            why = "it ran into the token limit" if cut_off else "it has no text"
            raise self._unusable(job, f"{why}; a model that thinks first needs its thinking turned off")
        answer = read_answer(content, form, cut_off=cut_off)
        if answer is None:
            why = "it ran into the token limit" if cut_off else f"no fields in {shorten(content, 60)!r}"
            raise self._unusable(job, why)
        tokens = openai_labels.read_tokens(choice.get("logprobs"))
        scores = {name: self._score(job, name, answer, tokens, form) for name in LABELLED}
        return Written(answer, scores, question, form)

    def _score(
        self,
        job: Job,
        name: BriefField,
        answer: Answer,
        tokens: Sequence[openai_labels.Token],
        form: AnswerForm,
    ) -> LabelScore:
        value, allowed = answer.values.get(name, ""), job.labels[name]
        label = match_label(value, allowed) if name in answer.ended else None
        if label is None:
            raise self._unusable(job, f"{name} {shorten(value, 60)!r} is none of the allowed labels")
        temperature = job.card.temperatures.get(name, 1.0) if job.card else 1.0
        return openai_labels.score(tokens, name, allowed, label, form, temperature)

    def _unusable(self, job: Job, why: str) -> UnusableError:
        return UnusableError(
            f"The model {job.model} at {self.chat.client.host} wrote no usable brief of this email ({one_line(why)}); use a server that keeps to a JSON schema, or another model."
        )
