"""One chat completion, asked with what the server takes.

Servers differ in what they know of the OpenAI interface. Everything is asked for at first; when the server refuses
a parameter by name, the request is made without it, and so is every later one of this process.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from briefbox.errors import ModelError
from briefbox.schemas import BriefField
from models.openai_client import Client, RefusedError
from models.openai_text import Question, schema

log = logging.getLogger(__name__)

# From the strictest on. llama.cpp takes a schema in the second one too.
FORMATS = ("json_schema", "json_object with schema", "json_object", "plain")
# 20 is the most that vLLM (--max-logprobs) and OpenAI give, 5 is TGI's.
TOP_LOGPROBS = (20, 5, 0)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the server takes, as far as it has said. Everything is expected of it at first."""

    format: int = 0  # index of FORMATS
    logprobs: int = 0  # index of TOP_LOGPROBS
    limit: str = "max_tokens"
    temperature: bool = True
    system_role: bool = True

    def without(self, about: str) -> "Abilities | None":
        """What is left when a server refused something with the words `about`; None when that explains nothing."""
        if "max_completion_tokens" in about and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        if "logprobs" in about and self.logprobs < len(TOP_LOGPROBS) - 1:
            return replace(self, logprobs=self.logprobs + 1)
        if "temperature" in about and self.temperature:
            return replace(self, temperature=False)
        if "role" in about and "system" in about and self.system_role:
            return replace(self, system_role=False)
        if self.format < len(FORMATS) - 1:
            return replace(self, format=self.format + 1)
        return None


@dataclass(slots=True)
class Spent:
    """What all requests for one email took together."""

    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0

    def add(self, answer: Mapping[str, Any]) -> None:
        """Count a chat completion. `timings` come from llama.cpp's server only."""
        usage, timings = _object(answer.get("usage")), _object(answer.get("timings"))
        self.tokens_in += int(_number(usage.get("prompt_tokens")))
        self.tokens_out += int(_number(usage.get("completion_tokens")))
        self.tokens_cached += int(
            _number(_object(usage.get("prompt_tokens_details")).get("cached_tokens"))
            or _number(timings.get("cache_n"))
        )
        self.prefill_ms += _number(timings.get("prompt_ms"))
        self.decode_ms += _number(timings.get("predicted_ms"))


class UnusableError(ModelError):
    """The answer holds no brief with allowed labels."""


class Chat:
    """Chat completions of one server, for many threads at once."""

    def __init__(self, client: Client) -> None:
        """Nothing is asked yet."""
        self.client = client
        self.abilities = Abilities()
        self._lock = Lock()

    def ask(
        self,
        question: Question,
        spent: Spent,
        *,
        model: str,
        labels: Mapping[BriefField, tuple[str, ...]] | None,
        max_tokens: int,
        deadline: float,
    ) -> Mapping[str, Any]:
        """The first choice of the answer. With `labels` it is asked for as JSON after their schema.

        Raises what Client.chat raises, RefusedError only where nothing is left to leave out, and UnusableError
        where there is no choice.
        """
        while True:
            abilities = self.abilities
            body = {"model": model, **_body(question, abilities, max_tokens)}
            if labels is not None and (wanted := _response_format(abilities, labels)):
                body["response_format"] = wanted
            try:
                answer = self.client.chat(body, deadline)
            except RefusedError as error:
                less = abilities.without(error.about)
                if less is None:
                    raise
                with self._lock:
                    # Another thread may have heard the same refusal already.
                    if self.abilities == abilities:
                        self.abilities = less
                        log.info("asking for less from now on: %s", error)
                continue
            spent.add(answer)
            choices = answer.get("choices")
            if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
                raise UnusableError(f"The model server at {self.client.host} gave no choices in its answer.")
            return choices[0]


def _body(question: Question, abilities: Abilities, max_tokens: int) -> dict[str, Any]:
    messages = [{"role": "system", "content": question.system}, {"role": "user", "content": question.user}]
    if not abilities.system_role:
        messages = [{"role": "user", "content": f"{question.system}\n\n{question.user}"}]
    body: dict[str, Any] = {"messages": messages, abilities.limit: max_tokens}
    if abilities.temperature:
        body["temperature"] = 0
    if top := TOP_LOGPROBS[abilities.logprobs]:
        body |= {"logprobs": True, "top_logprobs": top}
    return body


def _response_format(
    abilities: Abilities, labels: Mapping[BriefField, tuple[str, ...]]
) -> dict[str, Any] | None:
    wanted = schema(labels)
    return (
        {"type": "json_schema", "json_schema": {"name": "brief", "strict": True, "schema": wanted}},
        {"type": "json_object", "schema": wanted},
        {"type": "json_object"},
        None,
    )[abilities.format]


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    """A count or time of the server's, 0 where it is missing or senseless."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good and value >= 0 else 0.0  # type: ignore[arg-type, operator]
