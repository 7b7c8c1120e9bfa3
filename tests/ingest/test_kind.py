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


OWN = frozenset({"support@larkspur.example", "Sales@larkspur.example"})


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        ({"x-spam-flag": "YES"}, "X-Spam-Flag"),
        ({"x-spam-status": "Yes, score=12.1 required=5.0"}, "X-Spam-Status"),
        ({"x-spam": "Yes"}, "X-Spam"),
        ({"x-ms-exchange-organization-scl": "5"}, "X-MS-Exchange-Organization-SCL"),
        ({"x-ms-exchange-organization-scl": "9"}, "X-MS-Exchange-Organization-SCL"),
        ({"x-forefront-antispam-report": "CIP:1.2.3.4;SFV:SPM;SCL:6"}, "X-Forefront-Antispam-Report"),
        ({"x-spamd-result": "default: True [17.1 / 15.0]"}, "X-Spamd-Result"),
    ],
)
def test_spam_is_what_the_server_says_is_spam(headers: dict[str, str], names: str) -> None:
    kind, reason = classify(headers)
    assert kind == EmailKind.SPAM
    assert names in reason


@pytest.mark.parametrize(
    "headers",
    [
        {"x-spam-flag": "NO"},
        {"x-spam-status": "No, score=-1.9"},
        {"x-ms-exchange-organization-scl": "-1"},
        {"x-ms-exchange-organization-scl": "1"},
        {"x-forefront-antispam-report": "SFV:NSPM;SCL:1"},
        {"x-spamd-result": "default: False [4.0 / 15.0]"},
        {"x-spam-level": "****"},
    ],
)
def test_a_server_that_has_looked_for_spam_and_found_none_changes_nothing(headers: dict[str, str]) -> None:
    assert classify(headers)[0] == EmailKind.CUSTOMER


@pytest.mark.parametrize(
    "sender", ["support@larkspur.example", "SUPPORT+orders@Larkspur.example", "sales@larkspur.example"]
)
def test_mail_from_an_address_of_ours_is_own_mail(sender: str) -> None:
    kind, reason = classify({}, Signs(sender=sender, own_addresses=OWN))
    assert kind == EmailKind.OWN
    assert reason.startswith("From is ")
    again = classify({}, Signs(sender=sender, reply_to="sales+x@larkspur.example", own_addresses=OWN))
    assert again[0] == EmailKind.OWN


@pytest.mark.parametrize("sender", ["ana@larkspur.example", "support@other.example", ""])
def test_mail_from_elsewhere_is_not_own_mail(sender: str) -> None:
    assert classify({}, Signs(sender=sender, own_addresses=OWN))[0] == EmailKind.CUSTOMER


def test_a_contact_forms_mail_is_the_customers_even_when_it_was_sent_in_bulk() -> None:
    signs = Signs(sender="support@larkspur.example", reply_to="ana@example.org", own_addresses=OWN)
    kind, reason = classify({"precedence": "bulk", "list-unsubscribe": "<x>"}, signs)
    assert kind == EmailKind.CUSTOMER
    assert "Reply-To is ana@example.org" in reason


@pytest.mark.parametrize(
    "headers", [{"x-briefbox-mailbox": "1"}, {"x-briefbox-loop": "x", "auto-submitted": "no"}]
)
def test_what_this_product_sent_is_own_mail_whoever_brings_it_back(headers: dict[str, str]) -> None:
    signs = Signs(sender="support@larkspur.example", reply_to="ana@example.org", own_addresses=OWN)
    kind, reason = classify(headers, signs)
    assert kind == EmailKind.OWN
    assert "x-briefbox-" in reason


def test_a_form_that_says_that_nobody_is_behind_it_is_no_customer() -> None:
    signs = Signs(sender="support@larkspur.example", reply_to="ana@example.org", own_addresses=OWN)
    assert classify({"auto-submitted": "auto-generated"}, signs)[0] == EmailKind.AUTO_REPLY


LIST = {
    "list-id": "<users.lists.other.example>",
    "list-post": "<mailto:users@lists.other.example>",
    "precedence": "list",
}


def test_people_talking_on_a_list_are_a_list() -> None:
    kind, reason = classify(LIST, Signs(sender="bo@example.org", own_addresses=OWN))
    assert kind == EmailKind.LIST
    assert "List-Post is users@lists.other.example" in reason


@pytest.mark.parametrize(
    "post", ["support@larkspur.example", "help@larkspur.example", "support@groups.larkspur.example"]
)
def test_a_list_of_ours_is_how_customers_reach_us(post: str) -> None:
    headers = LIST | {"list-post": f"<mailto:{post}>"}
    assert classify(headers, Signs(sender="bo@example.org", own_addresses=OWN))[0] == EmailKind.CUSTOMER


def test_without_our_addresses_a_list_could_be_ours() -> None:
    assert classify(LIST)[0] == EmailKind.CUSTOMER


def test_one_click_unsubscribing_is_a_newsletter() -> None:
    kind, reason = classify(
        {"list-unsubscribe": "<https://x>", "list-unsubscribe-post": "List-Unsubscribe=One-Click"}
    )
    assert kind == EmailKind.NEWSLETTER
    assert "RFC 8058" in reason


def test_a_complaint_report_is_a_machines() -> None:
    headers = {"content-type": "multipart/report; report-type=feedback-report"}
    assert classify(headers)[0] == EmailKind.AUTO_REPLY


def test_every_reason_is_one_sentence() -> None:
    signs = Signs(sender="support@larkspur.example", own_addresses=OWN)
    for headers in ({}, {"x-spam-flag": "YES"}, {"auto-submitted": "x"}, LIST):
        for each in (Signs(), signs):
            reason = classify(headers, each)[1]
            assert reason.endswith(".")
            assert "\n" not in reason
