"""Calendar parts in words."""

import pytest

from briefbox.schemas import EmailKind
from ingest.invitation import read_invitation
from ingest.parse import parse_email
from tests.ingest.mails import mail, multipart, part


def event(*lines: str, method: str = "REQUEST") -> str:
    return "\r\n".join(
        [
            "BEGIN:VCALENDAR",
            f"METHOD:{method}",
            "BEGIN:VEVENT",
            "SUMMARY:Visit",
            *lines,
            "END:VEVENT",
            "END:VCALENDAR",
            "",
        ]
    )


@pytest.mark.parametrize(
    ("lines", "method", "text"),
    [
        (["DTSTART:20261127T093000Z"], "REQUEST", "Calendar invitation: Visit, on 2026-11-27 09:30 UTC"),
        (
            ["DTSTART;TZID=Europe/Berlin:20261127T093000", "DTEND;TZID=Europe/Berlin:20261127T103000"],
            "REQUEST",
            "Calendar invitation: Visit, on 2026-11-27 09:30 to 10:30 Europe/Berlin",
        ),
        (
            ['DTSTART;TZID="W. Europe Standard Time":20261127T230000', "DTEND:20261128T010000Z"],
            "REQUEST",
            "Calendar invitation: Visit, on 2026-11-27 23:00 to 2026-11-28 01:00 W. Europe Standard Time",
        ),
        (["DTSTART;VALUE=DATE:20261127", "DTEND;VALUE=DATE:20261128"], "PUBLISH", "Calendar event: Visit, on 2026-11-27"),
        (["DTSTART;VALUE=DATE:20261127", "DTEND;VALUE=DATE:20261130"], "ADD", "Calendar addition: Visit, from 2026-11-27 to 2026-11-29"),
        (["LOCATION:Room 1\\, first floor"], "CANCEL", "Calendar cancellation: Visit, at Room 1, first floor"),
        (["ORGANIZER;CN=Ana B:mailto:ana@b.example"], "REQUEST", "Calendar invitation: Visit, organised by Ana B (ana@b.example)"),
        (["ATTENDEE;PARTSTAT=DECLINED;CN=Bo:MAILTO:bo@b.example"], "REPLY", "Calendar reply: Visit, Bo (bo@b.example) declines"),
        (["RRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TU;COUNT=10"], "REQUEST", "Calendar invitation: Visit, every 2 weeks on Monday, Tuesday, 10 times"),
        (["RRULE:FREQ=DAILY;UNTIL=20261231T000000Z"], "REQUEST", "Calendar invitation: Visit, every day until 2026-12-31"),
        (["RRULE:FREQ=SECONDLY"], "REQUEST", "Calendar invitation: Visit, repeated"),
        (["DTSTART:next Monday"], "REQUEST", "Calendar invitation: Visit, on next Monday"),
    ],
)  # fmt: skip
def test_what_when_where_and_from_whom(lines: list[str], method: str, text: str) -> None:
    assert read_invitation(event(*lines, method=method)).text == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", "Calendar invitation that cannot be read"),
        ("rubbish", "Calendar invitation that cannot be read"),
        ("BEGIN:VCALENDAR\nMETHOD:CANCEL\nEND:VCALENDAR\n", "Calendar cancellation that cannot be read"),
        ("BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:Cut", "Calendar invitation: Cut"),
        ("BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VEVENT\n", "Calendar invitation: without a title"),
    ],
)
def test_a_broken_calendar_part_is_told_as_one(source: str, text: str) -> None:
    assert read_invitation(source).text == text


def test_a_bare_invitation_is_calendar_mail() -> None:
    parsed = parse_email(mail(event(), Content_Type="text/calendar"))
    assert parsed.kind == EmailKind.CALENDAR
    assert "text/calendar" in parsed.kind_reason


def test_an_invitation_that_only_repeats_its_description_is_calendar_mail() -> None:
    raw = multipart(
        "alternative",
        part("text/plain", "Let us\nmeet."),
        part("text/calendar", event("DESCRIPTION:Let us meet.")),
    )
    parsed = parse_email(raw)
    assert parsed.kind == EmailKind.CALENDAR
    assert parsed.text == "Calendar invitation: Visit"


def test_a_person_who_invites_with_words_is_a_customer_and_both_are_text() -> None:
    raw = multipart("mixed", part("text/plain", "Could you come on Friday?"), part("text/calendar", event()))
    parsed = parse_email(raw)
    assert parsed.kind == EmailKind.CUSTOMER
    assert parsed.text == "Calendar invitation: Visit\n\nCould you come on Friday?"


def test_an_attached_calendar_file_is_an_attachment() -> None:
    raw = multipart(
        "mixed",
        part("text/plain", "See the file."),
        part("text/calendar; name=visit.ics", event(), Content_Disposition="attachment; filename=visit.ics"),
    )
    parsed = parse_email(raw)
    assert parsed.text == "See the file."
    assert [one.name for one in parsed.attachments] == ["visit.ics"]
