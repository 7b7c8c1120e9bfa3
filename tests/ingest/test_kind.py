"""What sort of mail it is, told from headers."""

import pytest

from briefbox.schemas import EmailKind
from ingest.kind import Signs, classify


@pytest.mark.parametrize(
    ("headers", "kind", "names"),
    [
        ({}, EmailKind.CUSTOMER, "No header"),
        ({"auto-submitted": "auto-replied (vacation)"}, EmailKind.AUTO_REPLY, "Auto-Submitted"),
        ({"auto-submitted": "auto-generated"}, EmailKind.AUTO_REPLY, "Auto-Submitted"),
        ({"auto-submitted": "no"}, EmailKind.CUSTOMER, "No header"),
        ({"x-autoreply": "yes"}, EmailKind.AUTO_REPLY, "X-Autoreply"),
        ({"precedence": "auto_reply"}, EmailKind.AUTO_REPLY, "Precedence"),
        ({"subject": "Out of office: Re: your order"}, EmailKind.CUSTOMER, "No header"),
        (
            {"subject": "Out of office", "x-auto-response-suppress": "All"},
            EmailKind.AUTO_REPLY,
            "X-Auto-Response-Suppress",
        ),
        ({"subject": "Automatische Antwort: x", "return-path": "<>"}, EmailKind.AUTO_REPLY, "Return-Path"),
        ({"x-auto-response-suppress": "All", "subject": "My order"}, EmailKind.CUSTOMER, "No header"),
        (
            {"content-type": 'multipart/report; report-type="delivery-status"'},
            EmailKind.BOUNCE,
            "Content-Type",
        ),
        (
            {"content-type": "multipart/report; report-type=disposition-notification"},
            EmailKind.AUTO_REPLY,
            "read receipt",
        ),
        (
            {"return-path": "<>", "from": "Mail Delivery System <MAILER-DAEMON@mx.example>"},
            EmailKind.BOUNCE,
            "Return-Path",
        ),
        (
            {"from": "postmaster@shop.example", "return-path": "<a@shop.example>"},
            EmailKind.CUSTOMER,
            "No header",
        ),
        (
            {"list-unsubscribe": "<mailto:u@x>", "precedence": "bulk"},
            EmailKind.NEWSLETTER,
            "List-Unsubscribe",
        ),
        ({"list-id": "<news.x>", "precedence": "list"}, EmailKind.NEWSLETTER, "List-Id"),
        ({"list-unsubscribe": "<mailto:u@x>"}, EmailKind.CUSTOMER, "No header"),
        ({"precedence": "bulk"}, EmailKind.CUSTOMER, "No header"),
    ],
)
def test_the_header_decides_and_is_named(headers: dict[str, str], kind: EmailKind, names: str) -> None:
    found, reason = classify(headers)
    assert found == kind
    assert names in reason


def test_a_delivery_report_without_its_usual_envelope_is_a_bounce() -> None:
    kind, reason = classify({"content-type": "multipart/mixed"}, Signs(actions=("failed",)))
    assert kind == EmailKind.BOUNCE
    assert "Action: failed" in reason


def test_a_bounce_that_calls_itself_auto_replied_is_a_bounce() -> None:
    assert classify({"auto-submitted": "auto-replied"}, Signs(actions=("failed",)))[0] == EmailKind.BOUNCE


def test_a_customer_who_writes_to_a_support_address_that_is_a_group_stays_a_customer() -> None:
    group = {
        "list-id": "<support.shop.example>",
        "list-post": "<mailto:support@shop.example>",
        "list-unsubscribe": "<mailto:support+unsubscribe@shop.example>",
        "precedence": "list",
    }
    assert classify(group)[0] == EmailKind.CUSTOMER
