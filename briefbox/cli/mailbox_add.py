"""`briefbox mailbox add`: where an inbox is, how to sign in, where to begin; tested first, stored last."""

from pathlib import Path
from typing import Annotated

import typer

from briefbox.cli.context import actor, database_for, file_text
from briefbox.cli.mailbox_sign_in import OAuthOptions, sign_in
from briefbox.cli.output import console
from briefbox.db import Database
from briefbox.errors import ConflictError, InvalidValueError, NotFoundError
from briefbox.settings import Settings
from briefbox.store import mailboxes, secrets
from briefbox.tables import Mailbox

PORTS = {"tls": 993, "starttls": 143, "none": 143}
OLDER = ("closed", "briefed", "open")
ATTACHMENTS = ("keep", "reference")
_WHERE = ("host", "port", "security", "username")


def add(
    name: Annotated[str, typer.Argument(help="A short name, for example support.")],
    inbox: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="The inbox's address: its server is guessed from it.")
    ] = "",
    host: Annotated[str, typer.Option(help="IMAP server. Without it: guessed from the address.")] = "",
    username: Annotated[str, typer.Option(help="User name at the server. Default: the address.")] = "",
    address: Annotated[
        str, typer.Option(help="The inbox's own address, if not given as ADDRESS. Default: the user name.")
    ] = "",
    port: Annotated[int | None, typer.Option(help="Default: 993 with tls, else 143.")] = None,
    security: Annotated[
        str, typer.Option(help="tls, starttls, or none (only on this machine). Default: tls.")
    ] = "",
    auth: Annotated[
        str, typer.Option(help="password (an app password, too) or oauth2. Default: what the provider takes.")
    ] = "",
    password_file: Annotated[
        Path | None, typer.Option(help="File with the password. Without it you are asked.")
    ] = None,
    provider: Annotated[str, typer.Option(help="OAuth2: microsoft, google or custom.")] = "",
    client_id: Annotated[str, typer.Option(help="OAuth2: id of the registered application.")] = "",
    client_secret_file: Annotated[
        Path | None, typer.Option(help="OAuth2: file with the application's secret, where it has one.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="OAuth2 at Microsoft: your tenant's id or domain.")] = "",
    flow: Annotated[
        str,
        typer.Option(
            help="OAuth2: device (a code on any device), code (a browser here), client-credentials."
        ),
    ] = "",
    login_as: Annotated[
        str,
        typer.Option(help="OAuth2: address of the person who signs in, where the mailbox is a shared one."),
    ] = "",
    token_url: Annotated[str, typer.Option(help="OAuth2, custom: token end-point.")] = "",
    authorize_url: Annotated[str, typer.Option(help="OAuth2, custom: authorization end-point.")] = "",
    device_url: Annotated[str, typer.Option(help="OAuth2, custom: device authorization end-point.")] = "",
    scope: Annotated[
        str, typer.Option(help="OAuth2: scopes to ask for. Default: the provider's for IMAP.")
    ] = "",
    listen_port: Annotated[
        int, typer.Option(help="OAuth2, flow code: port of this machine that takes the answer. 0: any.")
    ] = 0,
    folder: Annotated[
        list[str] | None, typer.Option(help="Folder to watch; may be given again. Default: INBOX.")
    ] = None,
    sent_folder: Annotated[
        str,
        typer.Option(
            help='Folder of sent mail, watched for answers that were written elsewhere. Default: none; "-" ends it.'
        ),
    ] = "",
    own_address: Annotated[
        list[str] | None,
        typer.Option(help="Another address of yours that leads here; may be given again."),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            help='now: only new mail. all: also what is there already. "14 days": of that, the newest. Default: now.'
        ),
    ] = "",
    older: Annotated[
        str,
        typer.Option(
            help="Mail that is there already becomes: closed conversations, briefed (closed, with briefs), or open. Default: closed."
        ),
    ] = "",
    attachments: Annotated[
        str, typer.Option(help="keep, or reference (they stay on the server). Default: keep.")
    ] = "",
    ca_file: Annotated[
        Path | None, typer.Option(help="Certificate authority of a private server (PEM).")
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Change an existing mailbox of this name; what is not given stays as it is."
        ),
    ] = False,
    keep_sign_in: Annotated[
        bool, typer.Option("--keep-sign-in", help="With --replace: keep the stored password or tokens.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take the guessed server without asking.")] = False,
    no_test: Annotated[bool, typer.Option("--no-test", help="Store it without connecting first.")] = False,
) -> None:
    """Connect a support inbox. It is tested first; nothing is stored when the test fails."""
    for option, value, allowed in (
        ("--security", security, tuple(PORTS)),
        ("--auth", auth, ("password", "oauth2")),
        ("--older", older, OLDER),
        ("--attachments", attachments, ATTACHMENTS),
    ):
        if value and value not in allowed:
            raise typer.BadParameter(f"expected one of {', '.join(allowed)}", param_hint=option)
    database, settings = database_for()
    stored = _stored(database, name, replace=replace)
    row = _as_new(stored, name)
    guessed = _set_server(row, inbox or address, host, username, port, security, yes=yes)
    row.address = inbox or address or row.address or row.username
    changes: tuple[tuple[str, str | list[str] | None], ...] = (
        ("folders", folder),
        ("sent_folder", sent_folder),
        ("addresses", own_address),
        ("start_at", _start(start)),
        ("older", older),
        ("attachments", attachments),
        ("ca_file", str(ca_file.absolute()) if ca_file else ""),
        ("auth", auth or guessed),
    )
    for field, setting in changes:
        if setting:
            setattr(row, field, setting)
    row.sent_folder = "" if row.sent_folder == "-" else row.sent_folder
    row.vetted = False  # whoever has this command line may reach what this machine reaches
    if keep_sign_in:
        row.id = _check_kept(row, stored)
    elif row.auth == "oauth2":
        options = OAuthOptions(
            provider=provider, client_id=client_id, tenant=tenant, flow=flow, login_as=login_as, token_url=token_url,
            authorize_url=authorize_url, device_url=device_url, scope=scope, listen_port=listen_port,
            client_secret=_secret(client_secret_file, "--client-secret-file") if client_secret_file else "",
        )  # fmt: skip
        sign_in(row, settings, options)
    else:
        row.password_encrypted = secrets.cipher(settings).encrypt(name, _password(password_file))
        row.oauth, row.oauth_encrypted = {}, ""
    if not no_test:
        _test(row, settings, database if keep_sign_in else None)
    with database.write() as session:
        mailboxes.add(session, row, actor=actor(), replace=replace, keep_sign_in=keep_sign_in)
    console.print(f"Mailbox {name} is stored. `briefbox up` (or `briefbox poll`) reads it.")


def _stored(database: Database, name: str, *, replace: bool) -> Mailbox | None:
    """The mailbox of this name. Raises ConflictError when it exists and is not to be changed."""
    with database.read() as session:
        try:
            row = mailboxes.get(session, name)
        except NotFoundError:
            return None
        if not replace:
            raise ConflictError(mailboxes.name_taken(name))
        return row


def _as_new(stored: Mailbox | None, name: str) -> Mailbox:
    """A row that is not stored yet, with all that is stored under its name already."""
    blank = Mailbox(
        name=name, address="", host="", port=0, security="", username="", folders=["INBOX"], older="closed"
    )
    if stored is not None:
        for field in mailboxes.SETTINGS:
            setattr(blank, field, getattr(stored, field))
    return blank


def _set_server(
    row: Mailbox, address: str, host: str, username: str, port: int | None, security: str, *, yes: bool
) -> str:
    """Fill in where the mailbox is; guessed from the address where nobody says so. Returns the way to sign in, or ""."""
    row.username = username or row.username or address
    auth = ""
    if not host and not row.host:
        auth = _guess(row, address or row.username, username, yes=yes)
        security, port = security or row.security, port or row.port
    row.host = host or row.host
    if security and security != row.security and port is None:
        row.port = 0
    row.security = security or row.security or "tls"
    row.port = port or row.port or PORTS[row.security]
    if not row.username:
        raise InvalidValueError(
            "Neither an address nor a user name is given; expected `briefbox mailbox add NAME ADDRESS` or --username."
        )
    return auth


def _guess(row: Mailbox, address: str, username: str, *, yes: bool) -> str:
    from ingest.guess import guess

    if "@" not in address:
        raise InvalidValueError(
            "There is no host and no address to guess it from; expected `briefbox mailbox add NAME ADDRESS` or --host."
        )
    found = guess(address)
    row.host, row.port, row.security = found.host, found.port, found.security
    row.username = username or found.username
    if found.provider:
        row.oauth = {"provider": found.provider}
    console.print(
        f"Server: {found.host}:{found.port} with {found.security}, user name {row.username} ({found.source}).",
        markup=False,
    )
    if found.note:
        console.print(found.note, markup=False)
    if not yes and not typer.confirm("Sign in there?"):
        raise typer.Abort
    return found.auth[0]


def _start(text: str) -> str:
    """now, all, or so many days."""
    words = text.lower().split()
    if words in ([], ["now"], ["all"]):
        return " ".join(words)
    if (
        len(words) == 2
        and words[0].isdecimal()
        and words[1] in ("day", "days")
        and 0 < int(words[0]) < 10_000
    ):
        return f"{int(words[0])} days"
    raise typer.BadParameter('expected now, all, or a number of days as in "14 days"', param_hint="--start")


def _check_kept(row: Mailbox, stored: Mailbox | None) -> int:
    """A stored secret goes to no other server and no other user than the one it was entered for; the row's id."""
    if stored is None:
        raise InvalidValueError(
            f"--keep-sign-in keeps what is stored, and no mailbox {row.name} is; leave it out."
        )
    changed = [field for field in (*_WHERE, "auth") if getattr(row, field) != getattr(stored, field)]
    if changed:
        raise InvalidValueError(
            f"--keep-sign-in goes with the same server and user, and {' and '.join(changed)} would change; leave it out and sign in again."
        )
    return stored.id


def _test(row: Mailbox, settings: Settings, database: Database | None) -> None:
    from ingest.look import look

    facts = look(row, settings, database)
    console.print(f"{facts['server']}: signed in, {len(facts['folders'])} folders.")
    for sentence in facts["will"]:
        console.print(f"- {sentence}", markup=False)


def _password(path: Path | None) -> str:
    return (
        str(typer.prompt("Password", hide_input=True)) if path is None else _secret(path, "--password-file")
    )


def _secret(path: Path, option: str) -> str:
    try:
        return file_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read ({error})", param_hint=option) from error
