"""How much personal data the redaction finds, and what it takes out by mistake.

    python -m bench.redaction [--each 400]

Planted: random card numbers, IBANs, phone numbers, addresses and secrets, written in the ways people write them, in
sentences of five languages. Harmless: the starter emails, which hold ids, dates and amounts on purpose, and random ids
that look like the planted ones but fail their check digits.
"""

import argparse
import random
import string
from collections import Counter
from collections.abc import Callable

import phonenumbers
from stdnum import luhn
from stdnum.iso7064 import mod_97_10

from bench.common import print_table
from training.redact import find
from training.seeds import read_seeds

FRAMES = (
    "Hello, {} is what you asked for. Regards",
    "Please use {}, thanks!",
    "Hallo, meine Daten: {}\nViele Grüße",
    "Bonjour, voici {} comme demandé.",
    "Hola, esto es {} para el reembolso",
    "Ecco: {}.",
    "({})",
    "as I wrote on 3 May about order 48213: {} - is that enough?",
)
# Issuers' first digits and the length of their numbers.
CARDS = (("4", 16), ("51", 16), ("55", 16), ("34", 15), ("37", 15), ("6011", 16))
# Countries and the form of what follows the check digits: n digits, a letters, c either.
IBANS = (
    ("DE", "18n"), ("GB", "4a14n"), ("FR", "10n11c2n"), ("ES", "20n"), ("IT", "1a10n12c"), ("NL", "4a10n"),
    ("PL", "24n"), ("AT", "16n"), ("BE", "12n"), ("CH", "5n12c"), ("IE", "4a14n"), ("PT", "21n"),
)  # fmt: skip
REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "PL", "AT", "CH", "SE", "IE")


def card(rng: random.Random) -> str:
    """A number with its Luhn digit, in one of four spellings."""
    start, length = rng.choice(CARDS)
    body = start + "".join(rng.choices(string.digits, k=length - len(start) - 1))
    number = body + str(luhn.calc_check_digit(body))
    return rng.choice([number, _grouped(number, " "), _grouped(number, "-"), f"{number[:-4]} {number[-4:]}"])


def iban(rng: random.Random) -> str:
    """An account number with its check digits, together or in fours."""
    country, form = rng.choice(IBANS)
    body = ""
    for count, kind in _form(form):
        alphabet = {
            "n": string.digits,
            "a": string.ascii_uppercase,
            "c": string.digits + string.ascii_uppercase,
        }
        body += "".join(rng.choices(alphabet[kind], k=count))
    number = country + str(mod_97_10.calc_check_digits(body + country)) + body
    return rng.choice([number, _grouped(number, " ")])


def phone(rng: random.Random) -> str:
    """A number of a real plan, international or as people write it at home."""
    region = rng.choice(REGIONS)
    kind = rng.choice([phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE])
    example = phonenumbers.example_number_for_type(region, kind)
    assert example is not None
    written = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
    number = example
    for _ in range(20):
        number = phonenumbers.parse(written[:-4] + "".join(rng.choices(string.digits, k=4)))
        if phonenumbers.is_valid_number(number):
            break
    forms = phonenumbers.PhoneNumberFormat
    at_home = rng.choice([forms.INTERNATIONAL, forms.E164, forms.NATIONAL])
    return phonenumbers.format_number(number, at_home)


def address(rng: random.Random) -> str:
    """An email address."""

    def word(length: int) -> str:
        return "".join(rng.choices(string.ascii_lowercase, k=length))

    name = rng.choice([f"{word(5)}.{word(7)}", f"{word(4)}_{rng.randint(1, 99)}", f"{word(6)}+{word(3)}"])
    return f"{name}@{word(6)}.{rng.choice(['com', 'de', 'co.uk', 'example.org', 'fr'])}"


def secret(rng: random.Random) -> str:
    """A password, code, key or link with a token, said as people say it."""

    def some(length: int) -> str:
        return "".join(rng.choices(string.ascii_letters + string.digits, k=length))

    said = rng.choice(
        ["my password is {}", "password: {}", "Passwort: {}", "mein Kennwort ist {}", "mot de passe : {}", "contraseña: {}",
         "PIN {n}", "the SMS code is {n}", "API key: {k}", "sk-{k}", "ghp_{g}", "https://example.org/reset?token={k}"]
    )  # fmt: skip
    return said.format(some(9) + "!7", n=rng.randint(1000, 999999), k=some(24), g=some(36))


PLANTED: dict[str, Callable[[random.Random], str]] = {
    "card": card,
    "IBAN": iban,
    "phone": phone,
    "email": address,
    "secret": secret,
}


def harmless(rng: random.Random) -> str:
    """An id that is none of these: a card or an IBAN with a wrong check digit, an order, an amount, a date."""
    if rng.random() < 0.4:
        number = card(rng)
        wrong = str((int(number[-1]) + rng.randint(1, 9)) % 10)
        return "order " + number[:-1].replace(" ", "").replace("-", "") + wrong
    return rng.choice(
        [
            f"order {rng.randint(10**4, 10**9)}",
            f"invoice {rng.randint(2019, 2026)}-{rng.randint(1, 99999):05}",
            f"{rng.randint(1, 9999)}.{rng.randint(0, 99):02} EUR",
            f"{rng.randint(1, 28)}.{rng.randint(1, 12)}.2026 at {rng.randint(8, 18)}:30",
            f"serial {''.join(rng.choices(string.ascii_uppercase, k=3))}-{rng.randint(10**5, 10**7)}",
            f"tracking {rng.randint(10**11, 10**13)}",
        ]
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="How much personal data the redaction finds.")
    parser.add_argument("--each", type=int, default=400)
    each = parser.parse_args().each
    rng = random.Random(3)
    rows: list[tuple[object, ...]] = []
    for kind, make in PLANTED.items():
        whole = part = 0
        missed: list[str] = []
        for _ in range(each):
            value = make(rng)
            # What gives a secret away is its value, not the words that announce it.
            core = value.split()[-1].split("=")[-1] if kind == "secret" else value
            left = _without(rng.choice(FRAMES).format(value))
            found = core not in left
            whole += found
            part += not found and _digits(core) not in _digits(left)
            missed += [value] if not found else []
        rows.append((kind, each, f"{whole / each:.1%}", part, "; ".join(missed[:3])))
    print_table("Planted personal data", ["kind", "planted", "recall", "in part", "for example missed"], rows)
    wrong: Counter[str] = Counter()
    for _ in range(2 * each):
        spans = find(rng.choice(FRAMES).format(harmless(rng)))
        wrong.update(span.kind for span in spans)
    seeds = read_seeds()
    changed: Counter[str] = Counter()
    touched = 0
    for example in seeds:
        kinds = {span.kind for span in find(f"{example.input.subject}\n{example.input.text}")}
        changed.update(kinds)
        touched += bool(kinds)
    print_table(
        "Taken out by mistake",
        ["text", "texts", "with a placeholder", "kinds"],
        [
            ("random ids, amounts, dates", 2 * each, wrong.total(), dict(wrong)),
            ("starter emails (some hold addresses and codes)", len(seeds), touched, dict(changed)),
        ],
    )


def _without(text: str) -> str:
    parts, at = [], 0
    for span in find(text):
        parts.append(text[at : span.start])
        at = span.end
    return "".join([*parts, text[at:]])


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isalnum())


def _grouped(number: str, by: str) -> str:
    return by.join(number[at : at + 4] for at in range(0, len(number), 4))


def _form(form: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    count = ""
    for c in form:
        if c.isdigit():
            count += c
        else:
            found.append((int(count), c))
            count = ""
    return found


if __name__ == "__main__":
    main()
