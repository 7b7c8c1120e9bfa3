"""Find facts in text and give them one form: 1,200.50 and 1.200,50; 3 March and 2026-03-03; 2 pm and 14:00.

A fact that can be read in several ways (1,200; 03/04/2026) has several values; two facts agree when they share one.
Every pattern is bounded, so that no text makes them slow.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Literal

Kind = Literal["email", "link", "date", "time", "amount", "percent", "id", "phone", "number", "currency"]


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact as written, and its values in normal form."""

    kind: Kind
    text: str
    values: frozenset[str]


# --- words

CURRENCIES = {
    "€": "EUR", "eur": "EUR", "euro": "EUR", "euros": "EUR", "$": "USD", "usd": "USD", "us$": "USD", "dollar": "USD",
    "dollars": "USD", "£": "GBP", "gbp": "GBP", "pound": "GBP", "pounds": "GBP", "chf": "CHF", "fr.": "CHF",
    "franken": "CHF", "francs": "CHF", "¥": "JPY", "jpy": "JPY", "yen": "JPY", "円": "JPY", "元": "CNY", "cny": "CNY",
    "sek": "SEK", "nok": "NOK", "dkk": "DKK", "kr": "kr", "pln": "PLN", "zł": "PLN", "zl": "PLN", "₺": "TRY",
    "try": "TRY", "tl": "TRY", "₹": "INR", "inr": "INR", "rs": "INR", "rupees": "INR", "₽": "RUB", "rub": "RUB",
    "brl": "BRL", "r$": "BRL", "aud": "AUD", "a$": "AUD", "cad": "CAD", "c$": "CAD", "czk": "CZK", "kč": "CZK",
    "huf": "HUF", "ft": "HUF",
}  # fmt: skip

_MONTH_NAMES = (
    "january jan januar jänner janvier janv enero ene gennaio gen januari janeiro styczeń stycznia",
    "february feb februar février fevrier févr febrero febbraio februari fevereiro fev lutego",
    "march mar märz maerz mrz mars marzo maart março marca",
    "april apr avril avr abril abr aprile kwietnia",
    "may mai mayo maggio mag mei maio maj maja",
    "june jun juni juin junio giugno giu junho czerwca",
    "july jul juli juillet juil julio luglio lug julho lipca",
    "august aug août aout agosto ago augustus augusti sierpnia",
    "september sep sept septembre septiembre settembre set setembro września",
    "october oct oktober okt octobre octubre ottobre ott outubro out października",
    "november nov novembre noviembre novembro listopada",
    "december dec dezember dez décembre decembre déc diciembre dic dicembre dezembro grudnia",
)
MONTHS = {name: number for number, names in enumerate(_MONTH_NAMES, 1) for name in names.split()}

# From two on: "one" is an article in most languages. Words that mean something else elsewhere are left out
# (French neuf is new, Spanish once is English, German elf stays).
_NUMBER_NAMES = (
    "two twice zwei zweimal deux dos dois due twee två",
    "three thrice drei dreimal trois tres três tre drie",
    "four vier viermal quatre cuatro quatro quattro fyra",
    "five fünf fuenf cinq cinco cinque vijf fem",
    "six sechs seis sei zes",
    "seven sieben sept siete sette zeven",
    "eight acht huit ocho otto oito",
    "nine neun nueve nove negen",
    "ten zehn dix diez dieci dez tien",
    "eleven onze undici",
    "twelve zwölf zwoelf douze doce dodici twaalf",
)
NUMBER_WORDS = {name: str(number) for number, names in enumerate(_NUMBER_NAMES, 2) for name in names.split()}
# These mean something else too: they are taken from the email, and not asked of the brief.
_AMBIGUOUS_WORDS = frozenset({"sept", "dos", "due", "tre", "sei", "sex", "dix", "dez", "otto", "nove"})

# --- patterns, in the order in which they are tried

_CURRENCY = "|".join(sorted((re.escape(name) for name in CURRENCIES), key=len, reverse=True))
_NUMBER = r"\d{1,20}(?:[.,'’\u00a0\u202f ]\d{3}){0,6}(?:[.,]\d{1,10})?"
_MONTH = "|".join(sorted(MONTHS, key=len, reverse=True))
_TLD = "com|org|net|io|dev|app|info|biz|eu|de|at|ch|fr|es|it|nl|be|pt|pl|se|no|dk|fi|uk|ie|us|ca|au|jp|cn|ru|tr|br|in|cz|example|test|shop|store|online|cloud|email|gov|edu"
_PATTERNS: tuple[tuple[Kind, str], ...] = (
    ("email", r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}"),
    ("link", rf"(?:https?://|www\.)[^\s<>\"')\]]{{1,500}}|\b(?:[a-z0-9-]{{1,63}}\.){{1,4}}(?:{_TLD})\b(?:/[^\s<>\"')\]]{{0,400}})?"),
    ("date", r"\b\d{4}-\d{1,2}-\d{1,2}(?!\d)|\b\d{4}/\d{1,2}/\d{1,2}(?!\d)|\b\d{1,2}(?P<mark>[./-])\d{1,2}(?P=mark)(?:\d{4}|\d{2})\b|\b\d{1,2}\.\d{1,2}\.(?!\d)|\d{4}年\d{1,2}月\d{1,2}日|\d{1,2}月\d{1,2}日"),
    ("date", rf"\b\d{{1,2}}(?:st|nd|rd|th|er|º|\.)? ?(?:of |de |-)?(?:{_MONTH})\b\.?(?:,? (?:de )?\d{{4}}\b)?"),
    ("date", rf"\b(?:{_MONTH})\.? \d{{1,2}}(?:st|nd|rd|th)?\b(?!:)(?:,? \d{{4}}\b)?"),
    ("time", r"\b\d{1,2}(?:[:h]\d{2}){1,2}(?: ?[ap]\.?m\b\.?)?|\b\d{1,2} ?[ap]\.?m\b\.?|\b\d{1,2}(?:[:.]\d{2})? ?uhr\b|\b\d{1,2}h\b"),
    ("amount", rf"(?<![\w])(?:{_CURRENCY})[\u00a0\u202f ]?{_NUMBER}|\b{_NUMBER}[\u00a0\u202f ]?(?:{_CURRENCY})(?!\w)"),
    ("percent", rf"\b{_NUMBER} ?(?:%|percent\b|per cent\b|prozent\b|pour cent\b|por ciento\b)"),
    ("phone", r"(?<![\w.,/-])\+\d{1,3}[\d ()./-]{6,24}\d(?!\w)|(?<![\w.,/-])0\d{1,5}[ ()./-]{1,2}\d[\d ()./-]{4,20}\d(?!\w)|(?<![\w.,/-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\w)"),
    ("id", r"(?<![\w@])#?(?!\d{1,3}(?:st|nd|rd|th|x)\b)(?=[^\W_/-]{0,30}(?:[-_/][^\W_/-]{1,30}){0,5}(?![\w]))(?=[\w/-]{0,60}\d)(?=[\w/-]{0,60}[a-z])[a-z0-9]{1,30}(?:[-_/][a-z0-9]{1,30}){0,5}(?!\w)|\b\d{1,20}(?:[-/_]\d{1,20}){1,5}\b|\b\d{1,6}(?:\.\d{1,6}){2,5}\b"),
    ("number", rf"(?<![\d]){_NUMBER}(?:st|nd|rd|th|x|×)?(?![\d])"),
)  # fmt: skip
_FINDER = re.compile(
    "|".join(f"(?P<k{n}_{kind}>{pattern})" for n, (kind, pattern) in enumerate(_PATTERNS)), re.IGNORECASE
)
_END_OF_SENTENCE = re.compile(r"(?<=[a-z]{2})\.$", re.IGNORECASE)
_KINDS = {f"k{n}_{kind}": kind for n, (kind, _) in enumerate(_PATTERNS)}
_WORDS = re.compile(r"[^\W\d_]{2,12}")
_CURRENCY_WORD = re.compile(rf"(?<!\w)(?:{_CURRENCY})(?!\w)", re.IGNORECASE)


def plain(text: str) -> str:
    """NFKC: full-width figures and ligatures as ordinary ones, typographic dashes as hyphens."""
    return unicodedata.normalize("NFKC", text).translate(_DASHES)


_DASHES = {ord(dash): "-" for dash in "‐‑‒–—−"}


def literal(text: str) -> str:
    """Text for comparing characters: plain, without case, every run of spaces one space."""
    return " ".join(plain(text).casefold().split())


def find_facts(text: str, *, everything: bool = False) -> tuple[Fact, ...]:
    """The facts of a text in their order.

    `everything` is for the email: each fact is also given in the forms that a brief might use of it (the parts of a
    date, the figures in an id), and number words that could mean something else count, too.
    """
    return _find(text, everything) if len(text) < 2000 else tuple(_iterate(text, everything))


@lru_cache(maxsize=4096)
def _find(text: str, everything: bool) -> tuple[Fact, ...]:  # noqa: FBT001 - lru_cache
    return tuple(_iterate(text, everything))


def _iterate(text: str, everything: bool) -> Iterator[Fact]:  # noqa: FBT001
    text = plain(text)
    for match in _FINDER.finditer(text):
        # The group that closed last is the outermost one: a kind's.
        kind = _KINDS[match.lastgroup or ""]
        written = _END_OF_SENTENCE.sub("", match[0].strip())
        # What is impossible (the 39th of May) has no normal form and is right only where it is written so.
        values = _NORMAL[kind](written.casefold()) or {written.casefold()}
        yield Fact(kind, written, frozenset(values))
        if everything:
            yield from _parts(kind, written)
    for match in _WORDS.finditer(text):
        word = match[0].casefold()
        if word in NUMBER_WORDS and (everything or word not in _AMBIGUOUS_WORDS):
            yield Fact("number", match[0], frozenset({NUMBER_WORDS[word]}))
    if everything:
        for match in _CURRENCY_WORD.finditer(text):
            yield Fact("currency", match[0], frozenset({CURRENCIES[match[0].casefold()]}))


def _parts(kind: Kind, written: str) -> Iterator[Fact]:
    """Other facts inside a fact of the email."""
    if kind in ("email", "link"):
        yield Fact("link", written, frozenset({_domain(written.casefold())}))
    if kind in ("amount", "percent"):
        for number in re.findall(_NUMBER, written):
            yield Fact("number", number, frozenset(_numbers(number)))
    elif kind != "number":
        for run in re.findall(r"\d{1,40}", written):
            yield Fact("number", run, frozenset(_numbers(run)))
    digits = re.sub(r"\D", "", written)
    if len(digits) >= 7:
        yield Fact("phone", written, frozenset({digits, *_phone(written)}))
    if kind in ("phone", "date", "amount", "number", "time"):
        yield Fact("id", written, frozenset(_ids(written.casefold())))
    if kind == "date":
        # A full date holds the day without its year.
        yield Fact("date", written, frozenset(value[-5:] for value in _dates(written.casefold())))
        if re.fullmatch(r"\d{1,2}[./-]\d{1,2}\.?", written):  # or it was a number at the end of a sentence
            yield Fact("number", written, frozenset(_numbers(written.rstrip("."))))


# --- normal forms


def _numbers(written: str) -> set[str]:
    """Every reading of a number as a plain decimal: 1,200 is 1200 and 1.2."""
    written = re.sub(r"(?:st|nd|rd|th|x|×)$", "", written)
    written = re.sub(r"[\s'’]", "", written)
    marks = [char for char in written if char in ".,"]
    readings = set()
    if len(set(marks)) == 2:
        last = marks[-1]
        readings.add(written.replace("," if last == "." else ".", "").replace(last, "."))
    elif len(marks) > 1:
        readings.add(written.replace(marks[0], ""))
    elif marks:
        whole, _, rest = written.partition(marks[0])
        readings.add(f"{whole}.{rest}")
        if len(rest) == 3 and whole.strip("0") and len(whole) <= 3:
            readings.add(whole + rest)
    else:
        readings.add(written)
    return {form for reading in readings if (form := _decimal(reading))}


def _decimal(written: str) -> str:
    try:
        value = Decimal(written)
    except InvalidOperation:
        return ""
    return format(value.normalize(), "f") if value else "0"


def _amounts(written: str) -> set[str]:
    number = re.search(_NUMBER, written)
    assert number is not None
    name = (written[: number.start()] + written[number.end() :]).strip("\u00a0\u202f ")
    return {f"{CURRENCIES.get(name, name)} {value}" for value in _numbers(number[0])}


def _dates(written: str) -> set[str]:
    """Day and month, with the year where it is there: "03-11", "2026-03-11"; both orders where either is possible."""
    figures = [int(figure) for figure in re.findall(r"\d{1,4}", written)]
    month = next((MONTHS[word] for word in re.findall(r"[^\W\d_]+", written) if word in MONTHS), None)
    if month is not None:
        full = re.search(r"\d{4}", written)
        return _forms(int(full[0]) if full else None, {(month, day) for day in figures if day <= 31})
    if len(figures) == 3:
        if re.match(r"\d{4}", written):
            return _forms(figures[0], {(figures[1], figures[2])})
        year = figures[2] + 2000 if re.search(r"\D\d{2}$", written) else figures[2]
        return _forms(year, {(figures[1], figures[0]), (figures[0], figures[1])})
    if "月" in written:
        return _forms(None, {(figures[0], figures[1])})
    return _forms(None, {(figures[1], figures[0]), (figures[0], figures[1])})


def _forms(year: int | None, pairs: set[tuple[int, int]]) -> set[str]:
    valid = {(month, day) for month, day in pairs if 1 <= month <= 12 and 1 <= day <= 31}
    return {f"{month:02}-{day:02}" if year is None else f"{year}-{month:02}-{day:02}" for month, day in valid}


def _times(written: str) -> set[str]:
    figures = [int(figure) for figure in re.findall(r"\d{1,2}", written)]
    hour, minute = figures[0], figures[1] if len(figures) > 1 else 0
    if hour > 24 or minute > 59:
        return set()
    if re.search(r"p\.?m", written):
        return {f"{hour % 12 + 12}:{minute:02}"}
    if re.search(r"a\.?m", written):
        return {f"{hour % 12}:{minute:02}"}
    return {f"{hour % 24}:{minute:02}"}


def _ids(written: str) -> set[str]:
    return {re.sub(r"[\W_]", "", written)}


def _link(written: str) -> set[str]:
    address = re.sub(r"^https?://", "", written).removeprefix("www.")
    return {address.rstrip("/.,;:!?")}


def _domain(written: str) -> str:
    return next(iter(_link(written.rpartition("@")[2]))).partition("/")[0]


def _phone(written: str) -> set[str]:
    digits = re.sub(r"\D", "", written.replace("(0)", ""))
    return {"+" + digits if written.startswith("+") else digits} if len(digits) >= 7 else set()


_NORMAL: dict[Kind, Callable[[str], set[str]]] = {
    "email": lambda written: {written.rstrip(".-")},
    "link": _link,
    "date": _dates,
    "time": _times,
    "amount": _amounts,
    "percent": lambda written: _numbers(re.sub(r"[^\d.,'’]", "", written).rstrip(".,")),
    "id": _ids,
    "phone": _phone,
    "number": _numbers,
}
