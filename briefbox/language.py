"""Which language an email is written in: a library's answer, not the model's."""

from functools import lru_cache
from itertools import islice
from typing import Any

# More text makes the answer no better, and every character costs.
MAX_CHARS = 500
# Mostly a beginning of this length tells as much; where it is not as sure as this, the rest is read too.
FIRST_CHARS = 120
SURE = 0.95
# Fewer letters tell nothing: "ok", an order number, an address.
MIN_LETTERS = 8
MIN_CONFIDENCE = 0.3

# The languages it chooses from, ISO 639-1, with the names used in prompts and on the desk.
NAMES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sr": "Serbian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
# Scripts in which a single letter says as much as a short word.
_DENSE = frozenset({"ja", "ko", "zh", "th"})


def detect(text: str) -> str:
    """ISO 639-1 code of the language of `text`, or "" when it is too short or too unclear to tell."""
    text = text[:MAX_CHARS]
    num_letters = sum(1 for _ in islice(filter(str.isalpha, text), MIN_LETTERS))
    if num_letters < 2:
        return ""
    code, confidence = _identifier().classify(text[:FIRST_CHARS])
    if confidence < SURE and len(text) > FIRST_CHARS:
        code, confidence = _identifier().classify(text)
    if num_letters < MIN_LETTERS and code not in _DENSE:
        return ""
    return str(code) if confidence >= MIN_CONFIDENCE else ""


def english_name(code: str) -> str:
    """The language's English name ("German" for "de"); "" for a code that is not known."""
    return NAMES.get(code, "")


@lru_cache(maxsize=1)
def _identifier() -> Any:
    # Loading takes a second, so it waits for the first email.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(NAMES))
    # It keeps the other languages' table (28 MB) for a change of mind that we never have.
    identifier._full_model = (identifier.nb_ptc, identifier.nb_pc, identifier.nb_classes)
    return identifier
