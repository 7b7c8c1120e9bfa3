"""Delivery reports (RFC 3464) in words: who did not get the mail, and why."""

import re
from dataclasses import dataclass

from ingest.headers import Headers, read_headers

# More recipients than this are counted, not named.
MAX_RECIPIENTS = 20
_MAX_FIELD = 300
# Below the limit on one header, so that no report is refused for its length.
_MAX_REPORT = 60_000
_TYPED = re.compile(r"^[\w-]{1,20}\s*;\s*")


@dataclass(frozen=True, slots=True)
class Recipient:
    """What a report says of one recipient: Action in lower case, Status, and the server's own words."""

    address: str
    action: str
    status: str = ""
    diagnostic: str = ""

    def __str__(self) -> str:
        why = " ".join(text for text in (self.status, self.diagnostic) if text)
        return f"{self.address or 'a recipient'}: {self.action or 'no action'}" + (f" ({why})" if why else "")


def read_report(body: bytes) -> list[Recipient]:
    """The recipients of a message/delivery-status body, in order."""
    found: list[Recipient] = []
    body, at = body[:_MAX_REPORT], 0
    # The first block is about the mail as a whole; some senders put a recipient's fields there too.
    while at < len(body) and len(found) < 10 * MAX_RECIPIENTS:
        fields, after = read_headers(body, at, len(body))
        if after == at:
            # A line that is no field ends nothing: the next one may be.
            after = body.find(b"\n", at) + 1 or len(body)
        at = after
        if action := fields.get("action", ""):
            found.append(
                Recipient(
                    _value(fields, "original-recipient") or _value(fields, "final-recipient"),
                    action.split(";")[0].strip().lower()[:40],
                    _value(fields, "status").split(" ")[0][:20],
                    _value(fields, "diagnostic-code"),
                )
            )
    return found


def report_text(recipients: list[Recipient]) -> str:
    """One line for each recipient."""
    lines = [f"Delivery report: {recipient}" for recipient in recipients[:MAX_RECIPIENTS]]
    if len(recipients) > MAX_RECIPIENTS:
        lines.append(f"Delivery report: {len(recipients) - MAX_RECIPIENTS} more recipients")
    return "\n".join(lines)


def _value(fields: Headers, name: str) -> str:
    return _TYPED.sub("", fields.get(name, ""))[:_MAX_FIELD].strip()
