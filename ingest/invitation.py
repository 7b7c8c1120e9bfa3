"""A calendar part (RFC 5545, RFC 5546) in a few words: what, when, where, from whom."""

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from ingest.headers import one_line

# An invitation is short; what is beyond this is not read.
MAX_CALENDAR = 64_000
_MAX_WORDS = 300
_METHODS = {
    "REQUEST": "Calendar invitation",
    "PUBLISH": "Calendar event",
    "CANCEL": "Calendar cancellation",
    "REPLY": "Calendar reply",
    "COUNTER": "Calendar counter-proposal",
    "DECLINECOUNTER": "Calendar counter-proposal declined",
    "REFRESH": "Calendar request for the newest version",
    "ADD": "Calendar addition",
}
_ANSWERS = {"ACCEPTED": "accepts", "DECLINED": "declines", "TENTATIVE": "accepts tentatively"}
_EVERY = {"DAILY": "day", "WEEKLY": "week", "MONTHLY": "month", "YEARLY": "year"}
_DAYS = {"MO": "Monday", "TU": "Tuesday", "WE": "Wednesday", "TH": "Thursday", "FR": "Friday", "SA": "Saturday", "SU": "Sunday"}  # fmt: skip
# A time zone's own rules can be made to run for ever; its name says enough.
_ZONE = re.compile(r"^BEGIN:VTIMEZONE[ \t\r]*$", re.I | re.M)
_EDGE = re.compile(r"^(BEGIN|END):([A-Za-z-]{1,40})", re.I | re.M)
_MAX_NESTING = 20
_ZONE_END = re.compile(r"^END:VTIMEZONE[ \t\r]*$", re.I | re.M)


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a calendar part says; `description` is the text that programs repeat as the mail's own."""

    text: str
    method: str = ""
    description: str = ""


def read_invitation(source: str, method: str = "") -> Invitation:
    """The first event of a calendar part in a line. Never fails: a broken part is told as one.

    `method` is the Content-Type's; the part's own stands above it.
    """
    found = re.search(r"^METHOD:([A-Za-z-]{1,20})", source, re.M)
    method = found[1].upper() if found else method.upper()
    opening = _METHODS.get(method, "Calendar invitation")
    try:
        event = _event(source[:MAX_CALENDAR])
        facts = _facts(event, method)
        description = _words(event, "DESCRIPTION", 20_000)
    except Exception:
        # The library refuses broken parts by exceptions of many kinds.
        return Invitation(f"{opening} that cannot be read", method)
    return Invitation(f"{opening}: {', '.join(facts)}", method, description)


def _event(source: str) -> Any:
    from icalendar import Calendar

    for root in Calendar.from_ical(_closed(_without_zones(source)), multiple=True):
        for component in root.walk():
            if component.name in {"VEVENT", "VTODO", "VFREEBUSY"}:
                return component
    raise ValueError("no event")


def _closed(source: str) -> str:
    """The source with an END for every BEGIN: cut parts are common, and the library refuses them."""
    opened: list[str] = []
    for edge, name in _EDGE.findall(source):
        if edge.upper() == "BEGIN":
            opened.append(name)
        elif opened and opened[-1].upper() == name.upper():
            opened.pop()
    if len(opened) > _MAX_NESTING:
        raise ValueError("components nested too deep")
    return source.rstrip() + "".join(f"\nEND:{name}" for name in reversed(opened)) + "\n"


def _without_zones(source: str) -> str:
    kept, at = [], 0
    while zone := _ZONE.search(source, at):
        kept.append(source[at : zone.start()])
        end = _ZONE_END.search(source, zone.end())
        at = end.end() + 1 if end else len(source)
    return "".join(kept) + source[at:]


def _facts(event: Any, method: str) -> list[str]:
    facts = [_words(event, "SUMMARY") or "without a title"]
    if when := _when(event):
        facts.append(when)
    if where := _words(event, "LOCATION"):
        facts.append(f"at {where}")
    if event.get("RRULE") is not None and (rule := _recurrence(event["RRULE"])):
        facts.append(rule)
    if organiser := _person(event.get("ORGANIZER")):
        facts.append(f"organised by {organiser}")
    if method == "REPLY":
        facts += _answers(event)
    if method != "CANCEL" and _words(event, "STATUS").upper() == "CANCELLED":
        facts.append("cancelled")
    return facts


def _words(event: Any, name: str, most: int = _MAX_WORDS) -> str:
    value = event.get(name)
    value = value[0] if isinstance(value, list) and value else value
    return one_line(str(value))[:most].strip() if value is not None else ""


def _when(event: Any) -> str:
    start = event.get("DTSTART")
    begin, finish = _moment(start), _moment(event.get("DTEND"))
    if not isinstance(begin, date):
        # As it stands there is better than nothing.
        return f"on {one_line(str(start))[:40]}" if start else ""
    if not isinstance(begin, datetime):
        last = (
            finish.fromordinal(finish.toordinal() - 1) if type(finish) is date and finish > begin else begin
        )
        return f"on {begin}" if last == begin else f"from {begin} to {last}"
    text = f"on {begin:%Y-%m-%d %H:%M}"
    if isinstance(finish, datetime):
        same_day = finish.date() == begin.date()
        text += f" to {finish:%H:%M}" if same_day else f" to {finish:%Y-%m-%d %H:%M}"
    zone = one_line(str(start.params.get("TZID", "")))[:60] or ("UTC" if begin.tzinfo is not None else "")
    return f"{text} {zone}".rstrip()


def _moment(value: Any) -> Any:
    """The date or time of a property; None where it is missing or broken."""
    try:
        return getattr(value, "dt", None)
    except Exception:
        return None


def _recurrence(rule: Any) -> str:
    """A simple rule in words, any other only as repeated."""
    frequency = _EVERY.get(str(_only(rule, "FREQ")).upper())
    if frequency is None:
        return "repeated"
    interval = _only(rule, "INTERVAL")
    every = f"every {interval} {frequency}s" if interval and int(interval) > 1 else f"every {frequency}"
    days = [_DAYS.get(str(day).upper(), "") for day in rule.get("BYDAY", [])]
    if days and all(days) and frequency == "week":
        every += f" on {', '.join(days)}"
    if count := _only(rule, "COUNT"):
        every += f", {int(count)} times"
    elif isinstance(until := _only(rule, "UNTIL"), date):
        every += f" until {until:%Y-%m-%d}"
    return every


def _only(rule: Any, name: str) -> Any:
    values = rule.get(name, [])
    return values[0] if isinstance(values, list) and values else values or None


def _person(value: Any) -> str:
    if value is None:
        return ""
    address = re.sub(r"(?i)^mailto:", "", one_line(str(value)))[:_MAX_WORDS]
    name = one_line(str(getattr(value, "params", {}).get("CN", ""))).strip("\"'")[:_MAX_WORDS]
    return f"{name} ({address})" if name and address and name != address else name or address


def _answers(event: Any) -> list[str]:
    attendees = event.get("ATTENDEE", [])
    facts = []
    for attendee in (attendees if isinstance(attendees, list) else [attendees])[:5]:
        answer = _ANSWERS.get(str(getattr(attendee, "params", {}).get("PARTSTAT", "")).upper())
        if answer and (who := _person(attendee)):
            facts.append(f"{who} {answer}")
    return facts
