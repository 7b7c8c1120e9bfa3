"""What sort of mail it is, told from its headers and from what it carries.

Only customer mail is briefed. A wrong "customer" costs a brief, a wrong anything else hides a customer,
so each sign has to be one that people's own mail does not carry. The reason names the header that was found.
"""

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import lru_cache

from briefbox.schemas import EmailKind, ParsedEmail

# Our own mail carries it, whatever it is about.
OWN_HEADER = "x-briefbox-"
# Exchange's spam confidence level: 5 and 6 are spam, 7 to 9 certain spam.
_SPAM_LEVEL = 5
_DAEMON = re.compile(r"\b(mailer[-_]?daemon|postmaster|mail delivery (sub)?system)\b", re.IGNORECASE)

# Beginnings of subjects that autoresponders write; people write some of them too, so one alone is no proof.
_OUT_OF_OFFICE = re.compile(
    r"^\W*(auto(matic)?[- ]?(reply|response|antwort)|automatische antwort|out of (the )?office|abwesen|"
    r"r[ée]ponse automatique|absence du bureau|respuesta autom[áa]tica|fuera de (la )?oficina|"
    r"risposta automatica|fuori sede|automatisch antwoord|afwezig|resposta autom[áa]tica|autosvar|"
    r"automatisk[ta]? svar|odpowied[źz] automatyczna|автоматический ответ|автоответ|自動応答|自动答复|自动回复)",
    re.IGNORECASE,
)
_MAILTO = re.compile(r"mailto:([^>?,\s]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Signs:
    """What is told from elsewhere than a header's text.

    `actions` are a delivery report's Action fields in lower case; `invitation` is a calendar part's line where no
    person has written anything beside it.
    """

    actions: tuple[str, ...] = ()
    sender: str = ""
    reply_to: str = ""
    invitation: str = ""
    own_addresses: Set[str] = field(default_factory=frozenset)

    @property
    def is_ours(self) -> bool:
        """Whether it comes from one of our own addresses."""
        return bool(self.own_addresses) and self.sender != "" and is_own(self.sender, self.own_addresses)

    @property
    def is_form(self) -> bool:
        """Whether it comes from one of our own addresses for somebody else, as a contact form's mail does."""
        return self.is_ours and bool(self.reply_to) and not is_own(self.reply_to, self.own_addresses)


def classify(headers: Mapping[str, str], signs: Signs = Signs()) -> tuple[EmailKind, str]:
    """The kind and one sentence that names what it was told from.

    `headers` has lower-case names and decoded one-line values.
    """
    # A form's mail is sent by a machine of ours, so only what says that nobody is behind it stands above it.
    for kind, tell in (
        (EmailKind.OWN, _our_product),
        (EmailKind.BOUNCE, _bounce),
        (EmailKind.SPAM, _spam),
        (EmailKind.OWN, _own),
        (EmailKind.AUTO_REPLY, _auto_reply),
        (EmailKind.CUSTOMER, _form),
        (EmailKind.CALENDAR, _calendar),
        (EmailKind.NEWSLETTER, _newsletter),
        (EmailKind.LIST, _list),
    ):
        if reason := tell(headers, signs):
            return kind, reason
    return EmailKind.CUSTOMER, "No header says that a machine wrote it."


def as_sent(parsed: ParsedEmail, folder: str) -> ParsedEmail:
    """The same as our own mail: it lies in the folder of what we sent, whoever it says that it is from."""
    if parsed.kind == EmailKind.OWN:
        return parsed
    reason = f"It is in {folder}, the folder of what we sent."
    return parsed.model_copy(update={"kind": EmailKind.OWN, "kind_reason": reason})


def canonical(address: str) -> str:
    """An address as it is compared: in one case, without a plus-address's tag."""
    local, _, domain = address.strip().casefold().rpartition("@")
    return f"{local.partition('+')[0]}@{domain}"


def is_own(address: str, own_addresses: Iterable[str]) -> bool:
    """Whether an address is one of ours, in any case and with any tag."""
    return canonical(address) in _canonical_all(frozenset(own_addresses))


@lru_cache(maxsize=16)  # the same few addresses are asked about for each mail
def _canonical_all(addresses: frozenset[str]) -> frozenset[str]:
    return frozenset(map(canonical, addresses))


def _our_product(headers: Mapping[str, str], signs: Signs) -> str:
    ours = next((name for name in headers if name.startswith(OWN_HEADER)), "")
    return f"{ours} is set: briefbox sent it." if ours else ""


def _bounce(headers: Mapping[str, str], signs: Signs) -> str:
    if signs.actions:
        # Delayed, relayed, delivered or expanded: nothing has come back.
        failed = "failed" in signs.actions
        return "It holds a delivery report with Action: failed (RFC 3464)." if failed else ""
    content_type = headers.get("content-type", "").lower()
    if content_type.startswith("multipart/report") and "delivery-status" in content_type:
        return "Content-Type is multipart/report with a delivery-status (RFC 3464)."
    sender = headers.get("from", "")
    if _null_return_path(headers) and _DAEMON.search(sender):
        return f"Return-Path is empty and From is {sender[:80]}."
    if headers.get("x-failed-recipients"):
        return f"X-Failed-Recipients names {headers['x-failed-recipients'][:80]}."
    return ""


def _spam(headers: Mapping[str, str], signs: Signs) -> str:
    for name, shown in (
        ("x-spam-flag", "X-Spam-Flag"),
        ("x-spam", "X-Spam"),
        ("x-spam-status", "X-Spam-Status"),
    ):
        value = headers.get(name, "").strip()
        if re.match(r"(yes|true)\b", value, re.IGNORECASE):
            return f"{shown} is {value[:40]}."
    level = headers.get("x-ms-exchange-organization-scl", "").strip()
    if re.fullmatch(r"\d", level) and int(level) >= _SPAM_LEVEL:
        return f"X-MS-Exchange-Organization-SCL is {level}."
    if re.search(r"\bSFV:SPM\b", headers.get("x-forefront-antispam-report", "")):
        return "X-Forefront-Antispam-Report says SFV:SPM."
    if re.match(r"[\w-]{1,40}:\s*True\b", headers.get("x-spamd-result", "")):
        return "X-Spamd-Result is True."
    return ""


def _own(headers: Mapping[str, str], signs: Signs) -> str:
    if not signs.is_ours or signs.is_form:
        return ""
    return f"From is {signs.sender[:80]}, an address of ours."


def _form(headers: Mapping[str, str], signs: Signs) -> str:
    if not signs.is_form:
        return ""
    return f"From is an address of ours and Reply-To is {signs.reply_to[:80]}: a form sent it for them."


def _auto_reply(headers: Mapping[str, str], signs: Signs) -> str:
    if signs.actions:
        return f"It holds a delivery report with Action: {signs.actions[0] or 'none'} (RFC 3464): nothing came back."
    submitted = headers.get("auto-submitted", "").split(";")[0].strip().lower()
    if submitted and submitted != "no":
        return f"Auto-Submitted is {submitted[:40]} (RFC 3834)."
    for name, shown in (
        ("x-autoreply", "X-Autoreply"),
        ("x-autorespond", "X-Autorespond"),
        ("x-autoresponder", "X-Autoresponder"),
    ):
        value = headers.get(name, "").strip()
        if value and value.lower() != "no":
            return f"{shown} is {value[:40]}."
    precedence = _precedence(headers)
    if precedence == "auto_reply":
        return "Precedence is auto_reply."
    content_type = headers.get("content-type", "").lower()
    if "disposition-notification" in content_type:
        return "Content-Type says that it is a read receipt (RFC 8098)."
    if content_type.startswith("multipart/report") and "feedback-report" in content_type:
        return "Content-Type says that it is a complaint report (RFC 5965)."
    if _OUT_OF_OFFICE.match(headers.get("subject", "")):
        # Exchange puts X-Auto-Response-Suppress on people's mail too: it counts only here, as the second sign.
        if headers.get("x-auto-response-suppress"):
            return "The subject is an autoresponder's and X-Auto-Response-Suppress is set."
        if precedence in {"bulk", "junk", "list"}:
            return f"The subject is an autoresponder's and Precedence is {precedence}."
        if _null_return_path(headers):
            return "The subject is an autoresponder's and Return-Path is empty."
    return ""


def _calendar(headers: Mapping[str, str], signs: Signs) -> str:
    return "It is a text/calendar part without words of a person (RFC 6047)." if signs.invitation else ""


def _newsletter(headers: Mapping[str, str], signs: Signs) -> str:
    # A list that takes posts is people talking: a support address that is a Google group looks like this.
    if _takes_posts(headers):
        return ""
    precedence = _precedence(headers)
    if precedence in {"bulk", "list", "junk"}:
        for name, shown in (("list-unsubscribe", "List-Unsubscribe"), ("list-id", "List-Id")):
            if headers.get(name):
                return f"{shown} is set and Precedence is {precedence}."
    if headers.get("list-unsubscribe") and headers.get("list-unsubscribe-post"):
        return "List-Unsubscribe and List-Unsubscribe-Post are set (RFC 8058)."
    return ""


def _list(headers: Mapping[str, str], signs: Signs) -> str:
    """A discussion list that is not ours. Without our addresses nobody can tell: then it stays a customer's."""
    if not signs.own_addresses or not headers.get("list-id") or not _takes_posts(headers):
        return ""
    posts_to = [found.casefold() for found in _MAILTO.findall(headers.get("list-post", ""))]
    ours = {own.rpartition("@")[2] for own in _canonical_all(frozenset(signs.own_addresses))}
    for address in posts_to:
        domain = address.rpartition("@")[2]
        if any(domain == own or domain.endswith("." + own) or own.endswith("." + domain) for own in ours):
            return ""
    return f"List-Post is {posts_to[0][:80]}, a list that is not ours." if posts_to else ""


def _takes_posts(headers: Mapping[str, str]) -> bool:
    return "mailto:" in headers.get("list-post", "").lower()


def _precedence(headers: Mapping[str, str]) -> str:
    return headers.get("precedence", "").strip().lower()


def _null_return_path(headers: Mapping[str, str]) -> bool:
    return headers.get("return-path", "?").replace(" ", "") in {"<>", ""}
