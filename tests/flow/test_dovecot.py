"""The same path over Debian's Dovecot with verified TLS: a server that keeps flags, moves mail, and announces it."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlmodel import select

from briefbox.cli.checks import run_audit
from briefbox.store import mailboxes
from briefbox.tables import Conversation
from tests.conftest import make_email
from tests.flow.conftest import Stack, wait_for
from tests.servers import Dovecot, dovecot

pytestmark = pytest.mark.dovecot
MakeStack = Callable[..., Stack]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Dovecot]:
    with dovecot(tmp_path) as running:
        yield running


def start(make_stack: MakeStack, server: Dovecot, **extra: str) -> Stack:
    stack = make_stack(
        server.tls_port, security="tls", user=server.user, ca_file=str(server.ca_file), **extra
    )
    stack.start_all()
    return stack


def flags(server: Dovecot) -> set[tuple[bytes, ...]]:
    with server.client() as client:
        client.select_folder("INBOX", readonly=True)
        return {
            tuple(f for f in found if f != b"\\Recent")
            for found in client.get_flags(client.search()).values()
        }


def test_mail_is_briefed_over_tls_and_the_mailbox_is_as_it_was(
    make_stack: MakeStack, server: Dovecot
) -> None:
    server.append(*(make_email(n) for n in range(20)))
    stack = start(make_stack, server)
    wait_for(lambda: stack.num_briefs() == 20, "twenty briefs")
    assert flags(server) == {()}
    assert run_audit(stack.database, stack.settings)["clean"]


def test_what_other_people_do_in_the_mailbox_loses_and_doubles_nothing(
    make_stack: MakeStack, server: Dovecot
) -> None:
    stack = start(make_stack, server)
    server.append(*(make_email(n) for n in range(5)))
    wait_for(lambda: stack.num_briefs() == 5, "five briefs")
    with server.client() as client:
        client.create_folder("Done")
        client.select_folder("INBOX")
        uids = client.search()
        client.set_flags(uids, [b"\\Seen"])  # somebody reads
        client.move(uids[:2], "Done")  # somebody files
        client.select_folder("Done")
        client.move(client.search(), "INBOX")  # and changes their mind: the same bytes under new UIDs
    server.append(make_email(5))
    wait_for(lambda: stack.num_briefs() == 6, "the brief of a later mail")
    wait_for(
        lambda: stack.ledger_states() == {"queued": 6, "sighting": 2},
        "two sightings of the mails that came back",
    )
    assert set(Counter(stack.subjects()).values()) == {1}
    assert run_audit(stack.database, stack.settings)["clean"]


def test_kill_9_of_poller_and_worker_on_dovecot(make_stack: MakeStack, server: Dovecot) -> None:
    server.append(*(make_email(n) for n in range(60)))
    stack = start(make_stack, server, FETCH_BATCH="3", FAKE_ENGINE_SECONDS="0.02", MAX_ATTEMPTS="10")
    for wanted in (6, 24, 42):
        wait_for(lambda wanted=wanted: stack.num_emails() >= wanted, f"{wanted} emails")
        stack.kill("poll")
        stack.kill("worker")
        stack.start("poll")
        stack.start("worker")
    wait_for(lambda: stack.num_briefs() == 60, "sixty briefs", seconds=120)
    assert set(Counter(stack.subjects()).values()) == {1}
    assert stack.ledger_states() == {"queued": 60}
    assert run_audit(stack.database, stack.settings)["clean"]


def test_an_answer_from_another_mail_program_leaves_the_open_list(
    make_stack: MakeStack, server: Dovecot
) -> None:
    server.append(make_email(1), make_email(2))
    with server.client() as client:
        client.create_folder("Sent")
    stack = make_stack(server.tls_port, security="tls", user=server.user, ca_file=str(server.ca_file))
    with stack.database.write() as session:
        mailbox = mailboxes.get(session, "support")
        mailboxes.change(session, mailbox.id, {"sent_folder": "Sent"}, actor="test")
    stack.start_all()
    wait_for(lambda: stack.num_briefs() == 2, "two briefs")
    wait_for(lambda: states(stack) == ["open", "open"], "both to be open")
    answer = make_email(
        3,
        From="Ana <ana@elsewhere.example>",
        subject="Re: Question number 1",
        In_Reply_To="<mail-1@example.org>",
    ).replace(b"To: support@larkspur.example", b"To: customer1@example.org")
    server.append(answer, folder="Sent")
    wait_for(lambda: states(stack) == ["answered", "open"], "the answer", seconds=20)
    assert stack.num_briefs() == 2
    assert flags(server) == {()}
    server.append(
        make_email(
            4,
            subject="Re: Question number 1",
            In_Reply_To="<mail-3@example.org>",
            From="Customer 1 <customer1@example.org>",
        )
    )
    wait_for(lambda: states(stack) == ["open", "open"], "the next question", seconds=20)
    assert run_audit(stack.database, stack.settings)["clean"]


def states(stack: Stack) -> list[str]:
    with stack.database.read() as session:
        return list(session.exec(select(Conversation.state).order_by(Conversation.subject)))
