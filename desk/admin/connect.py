"""Connecting an inbox: its address, its server and sign-in with a test, and what of it is read.

    address -> server and sign-in -> test -> folders and start -> ten briefs for a look -> live

Everything lies in a draft (store/drafts.py) until the last step. Only its owner sees it; trouble is told on the page on
which it can be mended, with all that was typed but the password.
"""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from briefbox.connecting import PROMISE, ServerGuess
from briefbox.errors import BriefboxError, InvalidValueError, MailboxError
from briefbox.store import drafts, mailboxes, secrets, trials
from briefbox.tables import MailboxDraft, User
from desk.access import Admin
from desk.admin.connect_draft import (
    ATTACHMENTS,
    MAX_NAME,
    MAX_SECRET,
    OLDER,
    SECURITY,
    Form,
    Key,
    TheForm,
    address_of,
    as_facts,
    found_of,
    mailbox_of,
    one_of,
    port_of,
    start_of,
    tools_of,
    where,
)
from desk.context import Desk, TheDesk, page

PREFIX = "/admin/mailboxes/new"
router = APIRouter(prefix=PREFIX)

# What a person may choose for OAuth2 in the browser, with what it is called.
PROVIDERS = {"microsoft": "Microsoft 365, Outlook.com", "custom": "Another provider"}
FLOWS = {
    "device": "A person signs in, with a code on any device",
    "client-credentials": "The application itself signs in",
}
_OAUTH_FIELDS = ("client_id", "tenant", "login_as", "token_url", "device_url", "scope")


def to(key: str, step: str) -> Response:
    """On to a step, or to another page."""
    return RedirectResponse(step if step.startswith("/") else f"{PREFIX}/{key}/{step}", status_code=303)


# --- the address


@router.get("")
def address_page(request: Request, user: Admin) -> Response:
    """Where it begins."""
    return page(request, "connect_address.html", typed={}, trouble="")


@router.post("")
def begin(request: Request, desk: TheDesk, user: Admin, form: TheForm) -> Response:
    """Guess the server and keep what was entered."""
    typed: dict[str, str] = {}
    try:
        typed["address"] = form.text("address")
        typed["name"] = form.text("name", most=MAX_NAME)
        address = address_of(typed["address"])
        name = typed["name"] or address.partition("@")[0][:MAX_NAME]
        with desk.database.read() as session:
            mailboxes.check_name_is_free(session, name)
        guess = tools_of(desk).guess(address)
    except (InvalidValueError, MailboxError) as error:
        return page(request, "connect_address.html", typed=typed, trouble=str(error), status=400)
    values = {"name": name, "address": address, **_where(guess), "auth": guess.auth[0], "folders": ["INBOX"]}
    values["older"], values["start_at"], values["attachments"] = "closed", "now", "keep"
    with desk.database.write() as session:
        draft = drafts.create(session, user, values, {"guess": _guessed(guess)})
        key = draft.key
    return to(key, "server")


@router.post("/of/{mailbox_id}")
def begin_again(desk: TheDesk, mailbox_id: int, user: Admin) -> Response:
    """Sign in again to a mailbox that is stored: another password, another server, or OAuth2 anew."""
    with desk.database.write() as session:
        row = mailboxes.get_by_id(session, mailbox_id)
        kept = ("name", "address", "host", "port", "security", "username", "auth", "folders", "sent_folder")
        values = {field: getattr(row, field) for field in kept}
        values |= {"mailbox_id": row.id, "oauth": row.oauth}
        note = "The sign-in that is stored stays until the new one was tested."
        draft = drafts.create(session, user, values, {"guess": {"note": note}})
        key = draft.key
    return to(key, "server")


def _where(guess: ServerGuess) -> dict[str, Any]:
    return {"host": guess.host, "port": guess.port, "security": guess.security, "username": guess.username}


def _guessed(guess: ServerGuess) -> dict[str, Any]:
    return {
        "host": guess.host,
        "source": guess.source,
        "note": guess.note,
        "auth": list(guess.auth),
        "provider": guess.provider,
    }


# --- the server and the sign-in


@router.get("/{key}/server")
def server_page(request: Request, desk: TheDesk, key: Key, user: Admin) -> Response:
    """The server as it was guessed, and how to sign in."""
    with desk.database.read() as session:
        draft = drafts.get(session, key, user)
        kept = drafts.secret(draft, secrets.cipher(desk.settings))
        return page(
            request,
            "connect_server.html",
            draft=draft,
            guess=draft.facts.get("guess", {}),
            trouble=draft.facts.get("trouble", ""),
            has_password="password" in kept and kept.get("where") == where(draft.values),
            securities=SECURITY,
            providers=PROVIDERS,
            flows=FLOWS,
        )


@router.post("/{key}/server")
def save_server(desk: TheDesk, key: Key, user: Admin, form: TheForm) -> Response:
    """Sign in there and look, or begin a sign-in with the provider."""
    try:
        _keep_typed(desk, key, user, form)
        with desk.database.read() as session:
            auth = drafts.get(session, key, user).values["auth"]
        if auth == "oauth2":
            return to(key, "sign-in" if _begin_sign_in(desk, key, user, form) else test(desk, key, user))
        _keep_password(desk, key, user, form.text("password", most=MAX_SECRET, strip=False))
    except (InvalidValueError, MailboxError) as error:
        tell(desk, key, user, error)
        return to(key, "server")
    return to(key, test(desk, key, user))


def _keep_typed(desk: Desk, key: str, user: User, form: Form) -> None:
    """Keep each field that is what it should be, so that it need not be typed again; then complain."""
    values: dict[str, Any] = {}
    complaints: list[InvalidValueError] = []

    def keep(name: str, read: Any) -> None:
        try:
            values[name] = read()
        except InvalidValueError as error:
            complaints.append(error)

    keep("host", lambda: form.text("host").lower().rstrip("."))
    keep("port", lambda: port_of(form.text("port")))
    keep("security", lambda: one_of(form.text("security"), SECURITY, "encryption"))
    keep("username", lambda: form.text("username", called="user name"))
    keep("auth", lambda: one_of(form.text("auth"), ("password", "oauth2"), "way to sign in"))
    keep("provider", lambda: one_of(form.text("provider") or "microsoft", tuple(PROVIDERS), "provider"))
    keep("flow", lambda: one_of(form.text("flow") or "device", tuple(FLOWS), "way to sign in"))
    for field in _OAUTH_FIELDS:
        keep(field, lambda field=field: form.text(field, called=field.replace("_", " ")))
    with desk.database.write() as session:
        draft = drafts.locked(session, key, user)
        drafts.change(session, draft, values=values, facts={"trouble": "", "found": None})
    if complaints:
        raise complaints[0]
    if not values["host"] or not values["username"]:
        raise InvalidValueError("Host and user name are needed; usually the user name is the whole address.")


def _keep_password(desk: Desk, key: str, user: User, password: str) -> None:
    with desk.database.write() as session:
        draft, cipher = drafts.locked(session, key, user), secrets.cipher(desk.settings)
        kept = drafts.secret(draft, cipher)
        if not password and kept.get("where") == where(draft.values):
            password = kept.get("password", "")
        if not password:
            raise InvalidValueError(
                "The password is missing. It is sent to this server only, and stored encrypted."
            )
        drafts.keep_secret(
            session, draft, cipher, {**kept, "password": password, "where": where(draft.values)}
        )


def _begin_sign_in(desk: Desk, key: str, user: User, form: Form) -> bool:
    """Whether somebody has to enter a code now; else the application has signed in by itself."""
    tools, client_secret = tools_of(desk), form.text("client_secret", called="client secret", most=MAX_SECRET)
    with desk.database.write() as session:
        draft, cipher = drafts.locked(session, key, user), secrets.cipher(desk.settings)
        choices = {name: str(draft.values.get(name, "")) for name in ("provider", "flow", *_OAUTH_FIELDS)}
        config = tools.oauth_config(choices)
        kept = drafts.secret(draft, cipher)
        # Kept for the same application at the same address only.
        if not client_secret and kept.get("application") == [config["client_id"], config["token_url"]]:
            client_secret = kept.get("client_secret", "")
        kept = {
            "client_secret": client_secret,
            "application": [config["client_id"], config["token_url"]],
            "where": where(draft.values),
        }
        drafts.keep_secret(session, draft, cipher, kept)
        drafts.change(session, draft, values={"oauth": config})
    # No transaction is open while the provider is asked.
    if config["flow"] == "client-credentials":
        tokens, code = tools.app_signed_in(config, client_secret), None
    else:
        tokens, code = "", tools.ask_for_code(config, client_secret)
    with desk.database.write() as session:
        draft = drafts.locked(session, key, user)
        if code is None:
            drafts.keep_secret(session, draft, cipher, {**kept, "tokens": tokens})
            return False
        drafts.keep_secret(session, draft, cipher, {**kept, "device_code": code.device_code})
        shown = {
            "user_code": code.user_code,
            "address": code.address,
            "interval": code.interval,
            "expires_in": code.expires_in,
        }
        drafts.change(session, draft, facts={"code": shown, "code_at": ""})
    return True


def tell(desk: Desk, key: str, user: User, error: BriefboxError) -> None:
    """Keep what went wrong for the page on which it can be mended."""
    with desk.database.write() as session:
        drafts.change(session, drafts.locked(session, key, user), facts={"trouble": str(error)})


# --- the test


def test(desk: Desk, key: str, user: User) -> str:
    """Connect with what was entered. Returns the step that comes next; what failed is told on its page."""
    with desk.database.read() as session:
        draft = drafts.get(session, key, user)
        row, mailbox_id = mailbox_of(draft, desk.settings), draft.values.get("mailbox_id")
    try:
        found = tools_of(desk).look(row)
        if not found.folders:
            raise MailboxError("The server let us in and shows no folder that can be opened.")
    except (InvalidValueError, MailboxError) as error:
        tell(desk, key, user, error)
        return "server"
    with desk.database.write() as session:
        draft = drafts.locked(session, key, user)
        if mailbox_id is not None:
            mailboxes.sign_in_again(session, mailbox_id, row, actor=user.email)
            drafts.end(session, draft)
            return f"/admin/mailboxes/{mailbox_id}?note=signed-in"
        sent = next((folder.name for folder in found.folders if folder.is_sent), "")
        first = found.folders[0].name
        names = {folder.name for folder in found.folders}
        kept = [name for name in draft.values.get("folders", []) if name in names]
        drafts.change(
            session,
            draft,
            values={"folders": kept or [first], "sent_folder": draft.values.get("sent_folder") or sent},
            facts={"found": as_facts(found), "trouble": ""},
        )
    return "choose"


# --- what is read


@router.get("/{key}/choose")
def choose_page(request: Request, desk: TheDesk, key: Key, user: Admin) -> Response:
    """What the test found; folders, start and all else that is chosen."""
    with desk.database.read() as session:
        draft = drafts.get(session, key, user)
        found = found_of(draft)
        if found is None:
            return to(key, "server")
        start = str(draft.values.get("start_at", "now"))
        return page(
            request,
            "connect_choose.html",
            draft=draft,
            found=found,
            promise=PROMISE,
            trouble=draft.facts.get("trouble", ""),
            start=start if start in ("now", "all") else "days",
            days=start.split()[0] if start[:1].isdecimal() else "14",
        )


@router.post("/{key}/choose")
def choose(desk: TheDesk, key: Key, user: Admin, form: TheForm) -> Response:
    """Keep the choices."""
    with desk.database.write() as session:
        draft = drafts.locked(session, key, user)
        found = found_of(draft)
        if found is None:
            return to(key, "server")
        try:
            values = _choices(form, [folder.name for folder in found.folders])
        except InvalidValueError as error:
            drafts.change(session, draft, facts={"trouble": str(error)})
            return to(key, "choose")
        drafts.change(session, draft, values=values, facts={"trouble": "", "tried": None})
    return to(key, "try")


def _choices(form: Form, known: list[str]) -> dict[str, Any]:
    chosen = form.all("folder")
    folders = [name for name in known if name in chosen]
    if not folders:
        raise InvalidValueError("No folder is chosen; expected at least one, usually INBOX.")
    sent = form.text("sent_folder", called="folder of sent mail")
    if sent and (sent not in known or sent in folders):
        raise InvalidValueError(
            f"{sent} cannot be watched for answers: a folder is either read for customers' mail, or holds what we sent."
        )
    return {
        "folders": folders,
        "sent_folder": sent,
        "addresses": [address_of(line) for line in form.lines("addresses", called="address")],
        "start_at": start_of(form.text("start"), form.text("days")),
        "older": one_of(form.text("older"), OLDER, "choice for older mail"),
        "attachments": one_of(form.text("attachments"), ATTACHMENTS, "choice for attachments"),
    }


# --- the end


@router.post("/{key}/live")
def go_live(desk: TheDesk, key: Key, user: Admin) -> Response:
    """Store the mailbox: the poller takes it up within seconds."""
    with desk.database.write() as session:
        draft = drafts.locked(session, key, user)
        if found_of(draft) is None:
            return to(key, "server")
        mailboxes.check_name_is_free(session, draft.values["name"])
        row = mailboxes.add(session, mailbox_of(draft, desk.settings), actor=user.email)
        _forget(session, draft)
        mailbox_id = row.id
    return RedirectResponse(f"/admin/mailboxes/{mailbox_id}?note=live", status_code=303)


@router.post("/{key}/cancel")
def cancel(desk: TheDesk, key: Key, user: Admin) -> Response:
    """Give it up: nothing of it is kept."""
    with desk.database.write() as session:
        _forget(session, drafts.locked(session, key, user))
    return RedirectResponse("/admin/mailboxes?note=cancelled", status_code=303)


def _forget(session: Any, draft: MailboxDraft) -> None:
    if trial := draft.facts.get("trial"):
        trials.forget(session, trial)
    drafts.end(session, draft)
