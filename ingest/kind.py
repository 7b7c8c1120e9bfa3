"""What sort of mail it is, told from its headers alone.

Only customer mail is briefed. A wrong "customer" costs a brief, a wrong anything else hides a customer,
so each sign has to be one that people's own mail does not carry. The reason names the header that was found.
"""

import re
from collections.abc import Mapping, Sequence

from briefbox.schemas import EmailKind

_DAEMON = re.compile(r"\b(mailer[-_]?daemon|postmaster|mail delivery (sub)?system)\b", re.IGNORECASE)

# Beginnings of subjects that autoresponders write; people write some of them too, so one alone is no proof.
_OUT_OF_OFFICE = re.compile(
    r"^\W*(auto(matic)?[- ]?(reply|response|antwort)|automatische antwort|out of (the )?office|abwesen|"
    r"r[ée]ponse automatique|absence du bureau|respuesta autom[áa]tica|fuera de (la )?oficina|"
    r"risposta automatica|fuori sede|automatisch antwoord|afwezig|resposta autom[áa]tica|autosvar|"
    r"automatisk[ta]? svar|odpowied[źz] automatyczna|автоматический ответ|автоответ|自動応答|自动答复|自动回复)",
    re.IGNORECASE,
)


def classify(headers: Mapping[str, str], *, dsn_actions: Sequence[str] = ()) -> tuple[EmailKind, str]:
    """The kind and one sentence that names the header it was told from.

    `headers` has lower-case names and decoded one-line values; `dsn_actions` are the Action fields
    of a delivery report's parts.
    """
    for kind, reason in (
        (EmailKind.BOUNCE, _bounce(headers, dsn_actions)),
        (EmailKind.AUTO_REPLY, _auto_reply(headers)),
        (EmailKind.NEWSLETTER, _newsletter(headers)),
    ):
        if reason:
            return kind, reason
    return EmailKind.CUSTOMER, "No header says that a machine wrote it."


def _bounce(headers: Mapping[str, str], dsn_actions: Sequence[str]) -> str:
    content_type = headers.get("content-type", "").lower()
    if dsn_actions:
        return f"It holds a delivery report with Action: {dsn_actions[0].strip().lower()[:40]} (RFC 3464)."
    if content_type.startswith("multipart/report") and "delivery-status" in content_type:
        return "Content-Type is multipart/report with a delivery-status (RFC 3464)."
    sender = headers.get("from", "")
    if _null_return_path(headers) and _DAEMON.search(sender):
        return f"Return-Path is empty and From is {sender[:80]}."
    if headers.get("x-failed-recipients"):
        return f"X-Failed-Recipients names {headers['x-failed-recipients'][:80]}."
    return ""


def _auto_reply(headers: Mapping[str, str]) -> str:
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
    if "disposition-notification" in headers.get("content-type", "").lower():
        return "Content-Type says that it is a read receipt (RFC 8098)."
    if _OUT_OF_OFFICE.match(headers.get("subject", "")):
        # Exchange puts X-Auto-Response-Suppress on people's mail too: it counts only here, as the second sign.
        if headers.get("x-auto-response-suppress"):
            return "The subject is an autoresponder's and X-Auto-Response-Suppress is set."
        if precedence in {"bulk", "junk", "list"}:
            return f"The subject is an autoresponder's and Precedence is {precedence}."
        if _null_return_path(headers):
            return "The subject is an autoresponder's and Return-Path is empty."
    return ""


def _newsletter(headers: Mapping[str, str]) -> str:
    precedence = _precedence(headers)
    if precedence not in {"bulk", "list", "junk"}:
        return ""
    # A list that takes posts is people talking: a support address that is a Google group looks like this.
    if "mailto:" in headers.get("list-post", "").lower():
        return ""
    for name, shown in (("list-unsubscribe", "List-Unsubscribe"), ("list-id", "List-Id")):
        if headers.get(name):
            return f"{shown} is set and Precedence is {precedence}."
    return ""


def _precedence(headers: Mapping[str, str]) -> str:
    return headers.get("precedence", "").strip().lower()


def _null_return_path(headers: Mapping[str, str]) -> bool:
    return headers.get("return-path", "?").replace(" ", "") in {"<>", ""}
