"""Take out of a dataset what no model should learn: cards, accounts, phones, addresses, secrets.

Each becomes a typed placeholder, and the same value the same one within an example, so that a summary still
agrees with its email. Order, invoice and customer numbers stay: briefs are about them. Checks decide, not looks:
a card number has its Luhn digit, an IBAN its two check digits, a phone number is one of a real numbering plan.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import phonenumbers
from stdnum import iban, luhn

from briefbox.schemas import EarlierEmail, Example, ExampleOutput

# --- what is looked for, in this order: an address inside a link goes with the link's secret first

_PEM = re.compile(r"-----BEGIN [A-Z ]{3,40}-----.*?-----END [A-Z ]{3,40}-----", re.DOTALL)
_TOKEN = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|xox[abpr]-[A-Za-z0-9-]{10,}"
    r"|glpat-[A-Za-z0-9_-]{16,}|AIza[A-Za-z0-9_-]{30,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)"
)
_BEARER = re.compile(r"(?i)\bbearer\s+([A-Za-z0-9._~+/=-]{16,})")
_URL_LOGIN = re.compile(r"(?i)\b[a-z][a-z0-9+.-]{1,12}://([^\s/@:]{1,64}:[^\s/@]{1,64})@")
_URL_SECRET = re.compile(
    r"(?i)[?&](?:token|key|apikey|api_key|secret|password|pwd|sig|signature|code)=([^\s&#]{6,})"
)
# "password: x", "mein Passwort ist x", "le mot de passe : x". The value is the next word.
_SAID = re.compile(
    r"(?i)\b(?:password|passwort|kennwort|passphrase|pwd|pass ?code|mot de passe|contraseña|clave|password è|wachtwoord"
    r"|has[łl]o|senha|lösenord|pin(?: ?code)?|puk|tan|one[- ]time code|security code|verification code|(?:sms|login|sign-in|access) code|cvv|cvc"
    r"|api[- ]?key|secret(?: key)?|zugangscode|bestätigungscode)"
    r"(?:\s+(?:is|was|ist|war|lautet|est|es|è|jest|to|é|är|number))?\s*[:=]?\s*[\"'„“«]?"
    r"(?P<value>[^\s\"'„“”«»,;]{3,80})"
)
_EMAIL = re.compile(r"(?i)\b[a-z0-9._%+'-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,5}\b")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{1,4}){3,8}\b")
_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
_BLOB = re.compile(r"(?<![\w/+=-])[A-Za-z0-9_+/=-]{28,200}(?![\w/+=-])")
MIN_ENTROPY = 4.0  # bits a character; words and ids stay below
# A number after such a word is no phone, whatever it looks like.
_ID_BEFORE = re.compile(
    r"(?i)(?:order|invoice|ticket|case|customer|contract|booking|reference|ref|tracking|article|item|serial|claim|policy"
    r"|bestell\w*|rechnung\w*|auftrag\w*|kunden\w*|vertrag\w*|sendung\w*|commande|facture|pedido|factura|ordine|fattura"
    r"|no|nr|number|num|#|n°|№)[\s.:#°-]*(?:no|nr|number|id|nummer)?[\s.:#°-]*$"
)
REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "PL")
# Digits that people write a phone number with at least; shorter ones are counts and ids.
MIN_PHONE_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch [start, end) of a text that is of this kind."""

    start: int
    end: int
    kind: str


class Redactor:
    """Placeholders for the texts of one example: the same value gets the same one in all of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._known: dict[tuple[str, str], str] = {}
        self._numbers: Counter[str] = Counter()

    def redact(self, text: str, names: re.Pattern[str] | None = None) -> str:
        """The text with placeholders; `names` are people's to be taken out too."""
        parts: list[str] = []
        at = 0
        spans = find(text)
        if names is not None:
            told = (Span(found.start(), found.end(), "name") for found in names.finditer(text))
            spans += [n for n in told if all(n.end <= s.start or n.start >= s.end for s in spans)]
            spans.sort(key=lambda span: span.start)
        for span in spans:
            parts += [text[at : span.start], self._placeholder(span.kind, text[span.start : span.end])]
            at = span.end
            self.counts[span.kind] += 1
        return "".join([*parts, text[at:]])

    def _placeholder(self, kind: str, value: str) -> str:
        key = kind, re.sub(r"[\s-]", "", value).casefold()
        if key not in self._known:
            self._numbers[kind] += 1
            number = self._numbers[kind]
            self._known[key] = f"[{kind}]" if number == 1 else f"[{kind} {number}]"
        return self._known[key]


def redact_example(example: Example, *, names: bool = False) -> tuple[Example, Counter[str]]:
    """An example without what no model should learn, and how often what kind was taken out.

    With `names` also people's: those of the senders, in greetings and under sign-offs. A name in the middle of a
    sentence that stands in none of these places is not told from any other word.
    """
    redactor = Redactor()
    people = _people(example) if names else None

    def say(text: str) -> str:
        return redactor.redact(text, people)

    def brief(output: ExampleOutput) -> ExampleOutput:
        return output.model_copy(
            update={
                "headline": say(output.headline) if output.headline else output.headline,
                "summary": say(output.summary) if output.summary else output.summary,
            }
        )

    request = example.input.model_copy(
        update={
            "subject": say(example.input.subject),
            "text": say(example.input.text),
            "sender": say(example.input.sender),
            "earlier": tuple(
                EarlierEmail(sender=say(e.sender), text=say(e.text)) for e in example.input.earlier
            ),
        }
    )
    clean = example.model_copy(
        update={
            "input": request,
            "output": brief(example.output),
            "model_output": brief(example.model_output),
        }
    )
    return clean, redactor.counts


# "Dear Mr Adeyemi," and what stands alone under "Kind regards,".
_GREETED = re.compile(
    r"(?:^|\n)\s*(?:Dear|Hi|Hello|Hey|Hallo|Liebe[r]?|Sehr geehrte[r]?|Bonjour|Cher|Chère|Estimad[oa]|Hola|Gentile|Ciao|Beste)"
    r"\s+(?:(?:Mr|Mrs|Ms|Dr|Herr|Frau|Monsieur|Madame|Sr|Sra|Sig)\.?\s+)?(?P<name>[^\W\d_][\w'’-]+(?: [^\W\d_][\w'’-]+){0,2})\s*[,!\n]"
)
_SIGNED = re.compile(
    r"(?i:regards|wishes|sincerely|thanks|thank you|cheers|grüßen?|gruß|salutations|cordialement|saludos|saluti|groet(?:en)?)\s*,?\s*\n+\s*"
    r"(?P<name>[^\W\d_][\w.'’-]*(?: [^\W\d_][\w.'’-]*){0,3})\s*(?:\n|$)"
)
# Whom letters are addressed to that is nobody.
_NOBODY = {
    "all",
    "there",
    "team",
    "support",
    "sir",
    "madam",
    "everyone",
    "customer",
    "service",
    "sirs",
    "folks",
    "damen",
    "herren",
    "und",
}


def _people(example: Example) -> re.Pattern[str] | None:
    """Every name that the example gives away, whole or in part."""
    texts = [example.input.text, *(email.text for email in example.input.earlier)]
    senders = [example.input.sender, *(email.sender for email in example.input.earlier)]
    whole = [sender.split("<")[0].strip(' "') for sender in senders if "@" not in sender.split("<")[0]]
    for text in texts:
        whole += [found["name"] for rule in (_GREETED, _SIGNED) for found in rule.finditer(text)]
    parts = {
        part
        for name in whole
        for part in re.split(r"[\s,]+", name)
        if len(part) > 2 and part[0].isupper() and part.casefold() not in _NOBODY
    }
    if not parts:
        return None
    one = "|".join(sorted(map(re.escape, parts), key=lambda part: (-len(part), part)))
    # Neighbouring parts are one name, with an initial or two between them.
    return re.compile(rf"\b(?:{one})(?:[ ,]{{1,2}}(?:[A-Z]\. ?)*(?:{one}))*\b")


def find(text: str) -> list[Span]:
    """What is to be taken out, in the text's order and without overlap; of two the one found first stays."""
    taken: list[Span] = []
    for finder in _FINDERS:
        for span in finder(text):
            if all(span.end <= other.start or span.start >= other.end for other in taken):
                taken.append(span)
    return sorted(taken, key=lambda span: span.start)


# --- finders


def _secrets(text: str) -> Iterator[Span]:
    for pattern, group in ((_PEM, 0), (_TOKEN, 0), (_BEARER, 1), (_URL_LOGIN, 1), (_URL_SECRET, 1)):
        for match in pattern.finditer(text):
            yield Span(*match.span(group), "secret")
    for match in _SAID.finditer(text):
        value = match["value"].rstrip(".!?)")
        # "my password does not work": a word of language is no secret.
        if _looks_secret(value):
            start = match.start("value")
            yield Span(start, start + len(value), "secret")
    for match in _BLOB.finditer(text):
        value = match.group()
        if (
            _entropy(value) >= MIN_ENTROPY
            and any(c.isdigit() for c in value)
            and any(c.isalpha() for c in value)
        ):
            yield Span(*match.span(), "secret")


def _looks_secret(value: str) -> bool:
    return any(c.isdigit() for c in value) or any(not c.isalnum() for c in value[1:-1] if c not in "'’-")


def _emails(text: str) -> Iterator[Span]:
    for match in _EMAIL.finditer(text):
        yield Span(*match.span(), "email")


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        # A word in capitals behind it may have been taken along.
        words = match.group().split(" ")
        for count in range(len(words), 0, -1):
            value = " ".join(words[:count])
            if iban.is_valid(value, check_country=False):
                yield Span(match.start(), match.start() + len(value), "IBAN")
                break


def _cards(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        # Issuers' first digits: 2 to 6, as ISO/IEC 7812 gives them to banks and travel.
        if digits[0] in "23456" and luhn.is_valid(digits) and not _ID_BEFORE.search(text[: match.start()]):
            yield Span(*match.span(), "card")


def _phones(text: str) -> Iterator[Span]:
    for region in REGIONS:
        matcher = phonenumbers.PhoneNumberMatcher(text, region, leniency=phonenumbers.Leniency.VALID)
        for match in matcher:
            written = match.raw_string
            digits = sum(c.isdigit() for c in written)
            if digits < MIN_PHONE_DIGITS or _ID_BEFORE.search(text[: match.start]):
                continue
            # A parcel's number of the postal union: two letters, nine digits, two letters.
            if re.search(r"[A-Z]{2} ?$", text[: match.start]) and re.match(
                r" ?[A-Z]{2}\b", text[match.end :]
            ):
                continue
            # A number without any mark of a phone (a plus, a leading zero, groups) may be an id.
            if written.startswith(("+", "0", "(")) or re.search(r"\d[ ()/.-]+\d", written):
                yield Span(match.start, match.end, "phone")


def _entropy(text: str) -> float:
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())


_FINDERS: tuple[Callable[[str], Iterator[Span]], ...] = (_secrets, _emails, _ibans, _cards, _phones)
