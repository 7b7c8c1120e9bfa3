"""Can this base model write briefs here? Every question is one line; nothing but the tokenizer is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from briefbox.categories import DEFAULT_CATEGORIES
from briefbox.errors import ModelError
from briefbox.schemas import BriefRequest
from briefbox.settings import PACKAGED_MODEL, Settings
from models.base import resolve_base_model, weight_names
from models.catalog import Facts, Place, facts_of
from models.fit import Machine, fits, memory, row_tokens, this_machine, what_fits
from models.folders import read_card
from models.sums import file_sha256, remember, remembered, weights_sha256

# Number formats of plain weights, by safetensors' names. Others are packed ones, which want code of their own.
PLAIN = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class Line:
    """One answer: which question, whether it is well, and what was found."""

    check: str
    ok: bool
    says: str


def inspect(settings: Settings, place: Place, machine: Machine | None = None) -> list[Line]:
    """Ask everything of one model. The weights are hashed anew, whatever is remembered of them."""
    lines: list[Line] = []

    def ask(check: str, body: Callable[[], str]) -> bool:
        try:
            lines.append(Line(check, ok=True, says=body()))
        except ModelError as error:
            lines.append(Line(check, ok=False, says=str(error)))
        return lines[-1].ok

    if place.name == PACKAGED_MODEL and not ask("converted", lambda: _converted(settings)):
        return lines
    facts: list[Facts] = []
    if not ask("files", lambda: _files(place, facts)):
        return lines
    ask("weights", lambda: _weights(facts[0]))
    ask("checksums", lambda: _checksums(settings, place))
    ask("licence", lambda: facts[0].licence)
    ask("architecture", lambda: _architecture(settings, place, facts[0]))
    ask("chat template", lambda: _chat_template(settings, place))
    ask("context", lambda: _context(settings, facts[0]))
    ask("memory", lambda: _memory(settings, facts[0], machine or this_machine(settings)))
    return lines


def _converted(settings: Settings) -> str:
    return str(resolve_base_model(settings.model_copy(update={"base_model": PACKAGED_MODEL})).path)


def _files(place: Place, facts: list[Facts]) -> str:
    found = facts_of(place)
    facts.append(found)
    names = weight_names(place.path)
    return f"{place.path}: config.json and {len(names)} safetensors file{'' if len(names) == 1 else 's'}, {found.bytes / 1e9:.2f} GB, no code of its own"


def _weights(facts: Facts) -> str:
    if packed := set(facts.dtypes) - PLAIN:
        raise ModelError(
            f"The weights are packed ({', '.join(sorted(packed))}); expected plain ones (float32, float16 or bfloat16): take the model's unquantized form, or serve it with vLLM and BRIEFBOX_ENGINE=openai."
        )
    return f"headers are whole: {facts.parameters:,} parameters in {', '.join(facts.dtypes)}"


def _checksums(settings: Settings, place: Place) -> str:
    names = weight_names(place.path)
    sums = {name: file_sha256(place.path / name) for name in names}
    for name in names:
        before = remembered(place.path / name, settings.models_path)
        if before is not None and before != sums[name]:
            raise ModelError(
                f"{name} has other bytes than before, while its size and time are the same; the disk may be failing: copy the model again."
            )
    card = read_card(place.path)
    stated = card["files"] if isinstance(card.get("files"), dict) else {}
    for name, value in stated.items():
        file = place.path / name
        found = sums.get(name) or (file_sha256(file) if file.is_file() else "missing")
        if found != value:
            raise ModelError(
                f"{name} has sha256 {found[:12]}, but the card states {value[:12]}; it was altered: remove {place.path} and add the model again."
            )
    whole = weights_sha256(list(sums.items()))
    if card and card.get("weights_sha256") != whole:
        raise ModelError(
            f"The weights have sha256 {whole[:12]}, but the card states {str(card.get('weights_sha256'))[:12]}; they were altered: remove {place.path} and make the model again."
        )
    remember({place.path / name: value for name, value in sums.items()}, settings.models_path)
    return f"sha256 {whole[:12]} {'as its card states' if card else '(a folder of your own has no card to compare with)'}"


def _architecture(settings: Settings, place: Place, facts: Facts) -> str:
    from transformers import AutoConfig

    from models.attention import check_supported
    from models.quiet import quiet_transformers

    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(place.path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ModelError(f"transformers does not know this model ({_short(error)}).") from error
    if getattr(config, "quantization_config", None):
        raise ModelError(
            "config.json asks for quantized weights, which the engine `transformers` does not load."
        )
    if not facts.architecture.endswith("ForCausalLM"):
        raise ModelError(
            f"config.json names {facts.architecture or 'no architecture'}; expected a causal language model (...ForCausalLM)."
        )
    check_supported(config, row_tokens(settings))
    return facts.architecture


def _chat_template(settings: Settings, place: Place) -> str:
    from models.prompt import encode_prompt

    tokenizer = _tokenizer(place)
    if tokenizer.eos_token_id is None:
        raise ModelError("The tokenizer has no end-of-text token, so a brief would never end.")
    request = BriefRequest(subject="Hello", sender="Ana", text="Hello", categories=DEFAULT_CATEGORIES)
    prompt = encode_prompt(tokenizer, request, settings.max_email_tokens)
    return f"takes a system and a user message; the instructions and the default categories are {len(prompt.shared)} tokens"


def _tokenizer(place: Place) -> Any:
    from transformers import AutoTokenizer

    from models.quiet import quiet_transformers

    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(place.path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exception for a broken file
        raise ModelError(
            f"The tokenizer in {place.path} cannot be loaded ({_short(error)}); copy the model again."
        ) from error


def _context(settings: Settings, facts: Facts) -> str:
    needed = row_tokens(settings)
    if not facts.context:
        return f"config.json does not tell its length; these settings need {needed} tokens"
    if facts.context < needed:
        raise ModelError(
            f"The model reads {facts.context} tokens, but these settings need up to {needed}; set BRIEFBOX_MAX_EMAIL_TOKENS to {max(settings.max_email_tokens - needed + facts.context, 0)} or less."
        )
    return f"{facts.context:,} tokens; these settings need up to {needed:,}"


def _memory(settings: Settings, facts: Facts, machine: Machine) -> str:
    if facts.shape is None:
        return "config.json does not tell the model's shape, so the memory is unknown"
    need = memory(facts.shape, settings, machine.precision)
    sentence = f"needs {need.total / 1e9:.1f} GB in {machine.precision} (weights {need.weights / 1e9:.1f}, cache of a full batch {need.cache / 1e9:.1f}, the rest {need.overhead / 1e9:.1f}); {machine.name} has {machine.total / 1e9:.1f} GB, of which {machine.usable / 1e9:.1f} may be used"
    if not fits(facts.shape, settings, machine):
        raise ModelError(f"It {sentence}. {what_fits(facts.shape, settings, machine)}")
    return sentence


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
