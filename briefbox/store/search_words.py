"""Words: how a text is cut into them, the same for what is found and for what is asked; and questions of words.

    refund invoice      both words, wherever they stand; the last one may be the beginning of a longer one
    "not yet arrived"   these words in this order
    deliver*            words that begin so
    order-1001          what holds together is one phrase: order, then 1001

Everything else is plain text: no question is a wrong one.
"""

import re
import unicodedata
from dataclasses import dataclass

MAX_TERMS = 16
MAX_WORD = 100
# A shorter beginning is a word as it stands: too many begin with it.
MIN_BEGINNING = 3
MAX_LOOKED_UP = 30

# Written without blanks between words: each character is a word, and several are a phrase. Thai, Lao, Burmese, Khmer;
# then kana, bopomofo, Han, Hangul (its particles hang on the word).
_ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
_IS_ALONE = re.compile(rf"[{_ALONE}]")
# A quotation, or anything between blanks and quotation marks.
_PART = re.compile(r'"([^"]*)"|([^\s"]+)')
_QUOTES = str.maketrans(dict.fromkeys("“”„‟«»", '"'))
# These make another letter of a kana, where other marks are accents.
_VOICED = "\u3099\u309a"


@dataclass(frozen=True, slots=True)
class Term:
    """Words that stand one after the other; the last one may be the beginning of a word."""

    words: tuple[str, ...]
    beginning: bool = False
    ends: tuple[str, ...] = ()  # the words that the last one may be, where they were looked up


@dataclass(frozen=True, slots=True)
class Question:
    """All of these terms are to be found. None of them: nothing is."""

    terms: tuple[Term, ...]


def words(text: str) -> list[str]:
    """The words of a text, without case and accents."""
    return [word[:MAX_WORD] for word in _WORD.findall(fold(text)) if word]


def fold(text: str) -> str:
    """Without case, accents and differences of form (ﬁ and fi, ① and 1, half and full width)."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    bare = "".join(c for c in text if c in _VOICED or not unicodedata.category(c).startswith("M"))
    return unicodedata.normalize("NFC", bare)


def question(text: str) -> Question:
    """What somebody asks for. Never fails."""
    text = text.translate(_QUOTES)
    terms: list[Term] = []
    for quoted, plain in _PART.findall(text)[:MAX_TERMS]:
        part = quoted or plain
        if found := words(part):
            terms.append(
                Term(tuple(found[:MAX_TERMS]), beginning=plain.endswith("*") and part[-2:-1].isalnum())
            )
    if (
        terms
        and '"' not in text
        and len(terms[-1].words[-1]) >= MIN_BEGINNING
        and can_begin(terms[-1].words[-1])
    ):
        terms[-1] = Term(terms[-1].words, beginning=True)
    return Question(tuple(dict.fromkeys(terms)))


def can_begin(word: str) -> bool:
    """Whether a word is among those that are looked up by their beginnings: letters only, and no endless ones."""
    return word.isalpha() and len(word) <= MAX_LOOKED_UP and not _IS_ALONE.match(word)
