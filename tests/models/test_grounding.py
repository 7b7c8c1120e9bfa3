"""models/grounding.py and facts.py: what the email does not hold is found, in whatever form it is written."""

import re
import time
from typing import Any

import pytest

from briefbox.schemas import BriefRequest, EarlierEmail
from models.facts import find_facts
from models.grounding import Evidence

# An email and a summary that says the same in other words and forms.
PAIRS = [
    ("I was charged twice for order #48213 on 3 March (2 x 49.90 EUR). Please refund one before Friday.",
     "The customer paid 49,90 € twice for order 48213 on March 3rd and wants one refund by Friday."),
    ("Tracking number JX99812 has not moved since 2026-11-16. I need the tent before Saturday.",
     "Parcel JX99812 has been stuck since 16 November 2026; the tent is needed by Saturday."),
    ("All requests return HTTP 503 since 14:05 UTC. 12,000 users are affected.",
     "The API has answered 503 since 2:05 pm UTC, which hits 12000 users."),
    ("I reset my password three times. My customer number is 771204.",
     "Customer 771204 reset the password 3 times without success."),
    ("Please change the billing address on invoice 2024-1187 to Hauptstrasse 5, 10115 Berlin.",
     "Invoice 2024-1187 should go to Hauptstrasse 5, 10115 Berlin."),
    ("Sehr geehrte Damen und Herren, die Rechnung RE-2026/0815 über 1.234,56 € vom 12.03.2026 ist falsch.",
     "Die Rechnung RE-2026/0815 vom 12. März 2026 über EUR 1,234.56 wird beanstandet."),
    ("Mein Paket mit zwei Artikeln (Bestellung 99120) kommt nicht an. Rufen Sie mich unter +49 170 1234567 an.",
     "Bestellung 99120 mit 2 Artikeln fehlt; Rückruf unter 0170/1234567."),
    ("Bonjour, ma commande 5521 du 4 janvier 2026 (89,90 euros) est arrivée cassée.",
     "La commande 5521 du 04/01/2026 à 89.90 EUR est arrivée cassée."),
    ("Hola, pagué 1.500 $ el 7 de mayo y el pedido A-9931 no llegó.",
     "El pedido A-9931, pagado con 1,500 USD el 7 mayo, no llegó."),
    ("Write to jane.doe@example.org or see https://shop.example.org/orders/7781/ for details.",
     "Details are at shop.example.org/orders/7781; contact jane.doe@example.org."),
    ("The discount of 15 % was not applied to 3 of my 8 licences.",
     "A 15% discount is missing on three of eight licences."),
    ("Version 3.5.1 crashes on start since the update to build 20261101.",
     "After build 20261101, version 3.5.1 crashes."),
    ("My flight is on December 24th at 6:30 am, booking reference QX7T2P.",
     "Booking QX7T2P: the flight leaves on 24 December at 6:30."),
    ("We ordered 1 200,50 kg; the contract says 1200,50 at 0.85 GBP.",
     "The order is for 1,200.50 kg at £0.85."),
    ("Call +1 (555) 010-4477 before 5 pm, extension 12.",
     "Call back at +1 555-010-4477 before 17:00, extension 12."),
    ("Serial number SN:00-4411-AB, bought on 01.02.2025, warranty until 31.01.2027.",
     "Serial 00-4411-AB, bought 1 February 2025, has a warranty until 31 January 2027."),
    ("Der Termin um 14 Uhr am 5. Mai passt nicht, bitte auf 16:30 verschieben.",
     "Der Termin am 5.5. um 14:00 soll auf 16:30 Uhr verschoben werden."),
    ("IBAN DE89370400440532013000 was debited with CHF 75.- on 2026/10/02.",
     "75 CHF were taken from DE89370400440532013000 on 2 October 2026."),
    ("荷物番号 12345678 が11月20日に届きませんでした。",
     "11月20日の荷物 12345678 が届いていない。"),
    ("Ho pagato 250 euro il 9 luglio per l'ordine 6070, ma ne ho ricevuti solo quattro.",
     "Ordine 6070, 250 € pagati il 9 luglio: arrivati solo 4."),
    ("Order ORD-55821 (5 items, $1,049.00) never shipped. It has been 21 days.",
     "Order 55821 with five items for $1049 has not shipped for 21 days."),
    ("Ticket INC0098123: VPN drops every 10 minutes since last Tuesday at 09:15.",
     "INC0098123: the VPN has dropped every ten minutes since Tuesday 9:15."),
]  # fmt: skip


def request_of(text: str, **changes: Any) -> BriefRequest:
    return BriefRequest(**{"subject": "", "sender": "", "text": text, "categories": (), **changes})


@pytest.mark.parametrize(("text", "summary"), PAIRS)
def test_a_good_summary_in_other_forms_misses_nothing(text: str, summary: str) -> None:
    assert Evidence(request_of(text)).missing(summary) == ()


@pytest.mark.parametrize(("text", "summary"), PAIRS)
def test_one_changed_digit_is_caught(text: str, summary: str) -> None:
    evidence = Evidence(request_of(text))
    digits = [match.start() for match in re.finditer(r"\d", summary)]
    assert digits
    slipped = []
    for place in digits:
        for digit in "0123456789":
            mutant = summary[:place] + digit + summary[place + 1 :]
            if (
                digit != summary[place]
                and not evidence.missing(mutant)
                and not by_chance(mutant, place, text)
            ):
                slipped.append(mutant)
    assert slipped == []


def by_chance(mutant: str, place: int, text: str) -> bool:
    """Whether the changed number happens to stand in the email, too."""
    number = next(m[0] for m in re.finditer(r"\d+", mutant) if m.start() <= place < m.end())
    words = {"three": "3", "zwei": "2", "quattro": "4", "twice": "2"}
    known = set(re.findall(r"\d+", text)) | {n for word, n in words.items() if word in text.lower()}
    return number.lstrip("0") in {k.lstrip("0") for k in known}


@pytest.mark.parametrize(
    ("summary", "missing"),
    [
        ("The customer wants 50 EUR back.", ("50 EUR",)),
        ("Paid $49.90 for it.", ("$49.90",)),
        ("Write to eve@evil.example.", ("eve@evil.example",)),
        ("See https://evil.example/x today.", ("https://evil.example/x",)),
        ("It happened on 4 March.", ("4 March",)),
        ("Order 4821 is late.", ("4821",)),
        ("Order A48213 is late.", ("A48213",)),
        ("Seven parcels are late.", ("Seven",)),
        ("Call 0301234567.", ("0301234567",)),
        ("It costs 20 %.", ("20 %",)),
        ("It broke at 3 pm.", ("3 pm",)),
    ],
)
def test_invented_facts_are_named_as_written(summary: str, missing: tuple[str, ...]) -> None:
    text = "Order #48213 of 3 March: I was charged 49.90 EUR twice. Call me."
    assert Evidence(request_of(text)).missing(summary) == missing


@pytest.mark.parametrize(
    "summary",
    [
        "One of the customers asks whether anyone can help.",
        "No one answered the first email; a second one followed.",
        "The customer is angry and wants a refund at once.",
        "Both parcels are late, and the other one is broken.",
        "Asks for help, e.g. a new link. Nothing else.",
    ],
)
def test_ordinary_words_are_no_facts(summary: str) -> None:
    assert Evidence(request_of("Please help me.")).missing(summary) == ()


def test_every_part_of_the_email_that_people_see_counts() -> None:
    request = request_of(
        "Any news?",
        subject="Order 777",
        sender="Ana 42",
        earlier=(EarlierEmail(sender="support", text="We found parcel JX1 on 3 May."),),
    )
    assert Evidence(request).missing("Order 777 of Ana 42: parcel JX1 was found on May 3.") == ()
    assert Evidence(request).missing("Parcel JX2") == ("JX2",)


def test_a_sentence_is_supported_by_the_part_of_the_email_that_says_it() -> None:
    text = "Hello,\nmy tent never arrived. I ordered it on 3 March under number 48213. Please refund me.\nAna"
    evidence = Evidence(request_of(text))
    for sentence, expected in (
        ("Order 48213 was placed on March 3.", "I ordered it on 3 March under number 48213."),
        ("The tent has not arrived.", "my tent never arrived."),
    ):
        span = evidence.support(sentence)
        assert span is not None
        assert text[slice(*span)] == expected
    assert evidence.support("The weather is fine in Lisbon.") is None


def test_support_is_found_at_the_end_of_a_long_email() -> None:
    text = "Filler words without any meaning here. " * 5000 + "The washing machine leaks water badly."
    span = Evidence(request_of(text)).support("Water leaks from the washing machine.")
    assert span is not None
    assert text[slice(*span)] == "The washing machine leaks water badly."


def test_a_200_kb_email_is_read_quickly() -> None:
    text = " ".join(f"Line {n}: order {n * 7} of {n % 28 + 1} May cost {n}.50 EUR." for n in range(5000))
    assert len(text) > 200_000
    started = time.process_time()
    evidence = Evidence(request_of(text))
    assert evidence.missing("Order 34993 cost 4999.50 EUR, not 12.34 EUR.") == ("12.34 EUR",)
    assert evidence.support("Order 7 cost 1.50 EUR.") is not None
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "text", ["1," * 50_000, "a-1-" * 40_000, "1 " * 60_000, "3 " * 50_000, "+1 (" * 40_000, "12:" * 40_000]
)
def test_hostile_text_costs_bounded_time(text: str) -> None:
    started = time.process_time()
    assert isinstance(find_facts(text, everything=True), tuple)
    assert time.process_time() - started < 10
