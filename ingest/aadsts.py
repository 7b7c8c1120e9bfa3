"""What Microsoft's numbers mean (AADSTS...), and what to do about each, in a sentence."""

import re

_NUMBER = re.compile(r"AADSTS(\d{4,8})")
_PUBLIC = (
    "Allow public client flows for the application (Entra admin centre, App registrations, Authentication)."
)
_MEANINGS = {
    "16000": "Sign in with the account that has access to the mailbox, and no other.",
    "50020": "The account is of another tenant: enter its tenant, or invite it as a guest.",
    "50034": "There is no such account in this tenant: check the address and the tenant.",
    "50053": "The account is locked for a while after too many tries; wait, then sign in again.",
    "50055": "The account's password has expired: set a new one at Microsoft, then sign in again.",
    "50057": "The account is switched off: a shared mailbox has no sign-in of its own, so sign in as a person with full access to it.",
    "50076": "A second factor is wanted: sign in again and confirm it.",
    "50079": "A second factor must be set up for the account first; sign in at Microsoft once, then here.",
    "50105": "The account is not assigned to the application: assign it under Enterprise applications, Users and groups.",
    "50126": "The user name or the password was wrong.",
    "50173": "The password was changed since: sign in again.",
    "53000": "A rule of your organisation (Conditional Access) wants a managed device; ask its administrator for an exception for the application.",
    "53003": "A rule of your organisation (Conditional Access) blocks it; ask its administrator for an exception for the application.",
    "65001": "Nobody has consented to what the application asks for: grant admin consent under API permissions.",
    "65004": "The consent was declined; sign in again and accept, or have an administrator grant it.",
    "70000": "The sign-in is no longer good: sign in again.",
    "70008": "The sign-in was not used for too long: sign in again.",
    "70011": "The application may not ask for IMAP: add the permission IMAP.AccessAsUser.All (or IMAP.AccessAsApp) under API permissions.",
    "70016": "Nobody has signed in yet.",
    "70019": "The code has expired: begin again.",
    "90002": "There is no such tenant: check its id or domain.",
    "90094": "An administrator has to consent: grant admin consent under API permissions.",
    "500011": "The tenant does not know Exchange Online: check the tenant, and that it has mailboxes.",
    "700016": "This tenant knows no application with this id: check the client id and the tenant.",
    "700082": "The sign-in was not used for too long: sign in again.",
    "7000112": "The application is switched off in Entra.",
    "7000215": "The client secret is wrong: enter its value, not its id.",
    "7000218": _PUBLIC,
    "7000222": "The client secret has expired: make a new one under Certificates & secrets.",
    "90023": "The tenant cannot be used so: check its id or domain.",
    "900144": "Something is missing in the request: check the client id.",
    "9002346": "The application is for personal accounts only: allow accounts in your organisation's directory.",
    "50194": "The application is for one tenant only: enter its tenant.",
    "50059": "The tenant is missing: enter its id or domain.",
}  # fmt: skip


def meaning(said: str) -> str:
    """What to do about the number in these words; "" where there is none, or none that is known."""
    found = _NUMBER.search(said)
    return _MEANINGS.get(found[1], "") if found else ""
