"""A Dovecot mailbox that people and accidents disturb in every way at once, while the poller reads: nothing lost, nothing twice."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from briefbox.cli.checks import run_audit
from briefbox.tables import Mailbox, MailboxEvent
from tests.conftest import make_email
from tests.flow.conftest import Stack, wait_for
from tests.servers import Dovecot, dovecot

pytestmark = pytest.mark.dovecot
MakeStack = Callable[..., Stack]
FOLDERS = ["INBOX", "Web forms"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Dovecot]:
    with dovecot(tmp_path) as running:
        with running.client() as client:
            for name in ("Web forms", "Done"):
                client.create_folder(name)
        yield running


@pytest.fixture
def stack(make_stack: MakeStack, server: Dovecot) -> Stack:
    stack = make_stack(
        server.tls_port,
        security="tls",
        user=server.user,
        ca_file=str(server.ca_file),
        RECONCILE_SECONDS="1",
        POLL_SECONDS="1",
        FETCH_BATCH="7",
    )
    with stack.database.write() as session:
        row = session.exec(select(Mailbox)).one()
        row.folders = FOLDERS
        session.add(row)
    stack.start("poll")
    return stack


def ledger(stack: Stack) -> tuple[int, list[dict[str, Any]]]:
    """What `briefbox mailbox ledger` says, and its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "briefbox", "mailbox", "ledger", "support", "--json"],
        env=stack.environment,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else {}
    return done.returncode, found["folders"] if isinstance(found, dict) and "folders" in found else found


def wait_until_all_is_held(stack: Stack, numbers: set[int]) -> None:
    wanted = {f"Question number {n}" for n in numbers}
    wait_for(lambda: set(stack.subjects()) >= wanted, f"{len(wanted)} mails", seconds=90)
    assert len(stack.subjects()) == len(set(stack.subjects())), "a mail is there twice"
    wait_for(lambda: ledger(stack)[0] == 0, "server N = ledger N", seconds=60)


def test_what_people_do_in_other_programs(stack: Stack, server: Dovecot) -> None:
    server.append(*(make_email(n) for n in range(12)))
    wait_until_all_is_held(stack, set(range(12)))
    stack.kill("poll")
    with server.client() as client:
        client.select_folder("INBOX")
        uids = client.search()
        client.set_flags(uids[:4], [b"\\Seen", b"\\Flagged"])
        client.move(uids[:3], "Done")
        client.copy(uids[3:5], "Web forms")  # the same bytes in another watched folder
        client.delete_messages(uids[5:7])
        client.expunge(uids[5:7])
        client.append("INBOX", make_email(12))
        client.append("Web forms", make_email(13))
        client.append("INBOX", make_email(14))
        client.set_flags(client.search()[-1:], [b"\\Seen"])  # read before the poller is back
        client.select_folder("Done")
        client.move(client.search(), "INBOX")
    stack.start("poll")
    wait_until_all_is_held(stack, set(range(15)))
    assert run_audit(stack.database, stack.settings)["clean"]


def test_a_folder_that_is_renamed_deleted_and_made_again(stack: Stack, server: Dovecot) -> None:
    server.append(*(make_email(n) for n in range(5)), folder="Web forms")
    server.append(make_email(5))
    wait_until_all_is_held(stack, set(range(6)))
    with server.client() as client:
        client.rename_folder("Web forms", "Forms")
        client.append("Forms", make_email(6))
    wait_until_all_is_held(stack, set(range(7)))
    with stack.database.read() as session:
        assert session.exec(select(Mailbox)).one().folders == ["INBOX", "Forms"]
    with server.client() as client:
        client.delete_folder("Forms")
        client.append("INBOX", make_email(7))
    wait_for(lambda: "Question number 7" in stack.subjects(), "the other folder to go on")
    with server.client() as client:
        client.create_folder("Forms")
        client.append("Forms", make_email(2))  # held already
        client.append("Forms", make_email(8))
    wait_until_all_is_held(stack, set(range(9)))
    with stack.database.read() as session:
        kinds = set(session.exec(select(MailboxEvent.kind)))
    assert {"folder renamed", "renumbered"} <= kinds


def test_a_server_that_forgets_its_uids_or_comes_back_from_a_backup(stack: Stack, server: Dovecot) -> None:
    mail = server.log_file.parent / "mail" / server.user
    server.append(*(make_email(n) for n in range(10)))
    wait_until_all_is_held(stack, set(range(10)))
    stack.kill("poll")
    # The server's list of UIDs is lost: the same mail under a new UIDVALIDITY.
    for path in mail.glob("dovecot*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    server.append(make_email(10))
    stack.start("poll")
    wait_until_all_is_held(stack, set(range(11)))
    stack.kill("poll")
    # Last night's backup comes back: UIDs that were given out since are given to other mail.
    backup = mail.with_name("backup")
    shutil.copytree(mail, backup, copy_function=shutil.copy2)
    server.append(make_email(11), make_email(12))
    stack.start("poll")
    wait_until_all_is_held(stack, set(range(13)))
    stack.kill("poll")
    owner = mail.stat()
    shutil.rmtree(mail)
    shutil.copytree(backup, mail, copy_function=shutil.copy2)
    for path in (mail, *mail.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)
    server.append(make_email(13), make_email(14), make_email(15))
    stack.start("poll")
    wait_until_all_is_held(stack, set(range(16)))
    with stack.database.read() as session:
        kinds = list(session.exec(select(MailboxEvent.kind)))
    assert {"renumbered", "restored"} <= set(kinds)
    assert run_audit(stack.database, stack.settings)["clean"]
