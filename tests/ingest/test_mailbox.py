"""The mailbox: the embedded server, Dovecot, and servers that break the rules."""

import logging
import select
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from imapclient import IMAPClient

from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.errors import (
    FolderMissingError,
    MailboxError,
    MailboxLoginError,
    MailboxProtocolError,
    MailboxTLSError,
)
from ingest.fake_mailbox import FakeMailbox
from ingest.imap_mailbox import IMAPMailbox
from ingest.mailbox import GONE, Account
from tests.servers import Dovecot, ScriptedIMAP, dovecot, free_port, make_certificate

USER, PASSWORD = "desk", "secret sauce"
RAW = b"Subject: %d\r\n\r\nHello, this is mail %d.\r\n"


def account(port: int, **values: Any) -> Account:
    return Account(
        **{
            "host": "127.0.0.1",
            "port": port,
            "username": USER,
            "password": PASSWORD,
            "security": "none",
            "timeout": 10,
            **values,
        }
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedIMAP]:
    certificate = make_certificate(tmp_path_factory.mktemp("certificate"))
    with EmbeddedIMAP(
        {USER: PASSWORD},
        tls_port=0,
        cert_file=certificate.cert_file,
        key_file=certificate.key_file,
    ) as server:
        yield server


@pytest.fixture
def folder(server: EmbeddedIMAP, request: pytest.FixtureRequest) -> str:
    """A fresh folder for one test, with two mails."""
    name: str = request.node.name
    with other(server) as client:
        client.create_folder(name)
        for number in (1, 2):
            client.append(name, RAW % (number, number), msg_time=datetime(2026, 3, number, 8, tzinfo=UTC))
    return name


@pytest.fixture
def mailbox(server: EmbeddedIMAP) -> Iterator[IMAPMailbox]:
    with IMAPMailbox(account(server.port, security="starttls", ca_file=_ca(server))) as mailbox:
        yield mailbox


@pytest.fixture(scope="module")
def a_dovecot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dovecot]:
    with dovecot(tmp_path_factory.mktemp("dovecot")) as server:
        yield server


def of(server: Dovecot, **values: Any) -> Account:
    port = values.pop("port", server.port)
    return account(port, **{"username": server.user, "password": server.password, **values})


def other(server: EmbeddedIMAP) -> IMAPClient:
    """Somebody else at the same mailbox."""
    client = IMAPClient("127.0.0.1", port=server.port, ssl=False, timeout=10)
    client.starttls(_trusting(server))
    client.login(USER, PASSWORD)
    return client


def _ca(server: EmbeddedIMAP) -> Path:
    assert server._cert_file is not None
    return server._cert_file.with_name("ca.pem")


def _trusting(server: EmbeddedIMAP) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=_ca(server))


# --- reading


def test_a_folder_is_opened_and_its_emails_come_as_they_are(mailbox: IMAPMailbox, folder: str) -> None:
    status = mailbox.open_folder(folder)
    uids = mailbox.uids_above(0)
    assert (status.exists, len(uids), status.uidnext) == (2, 2, uids[-1] + 1)
    assert mailbox.sizes(uids) == dict.fromkeys(uids, len(RAW % (1, 1)))
    first, second = mailbox.fetch(uids)
    assert (first.raw, second.raw) == (RAW % (1, 1), RAW % (2, 2))
    assert first.size == len(RAW % (1, 1))
    assert first.internal_date == datetime(2026, 3, 1, 8, tzinfo=UTC)


def test_what_an_email_says_is_not_written_into_the_log(
    mailbox: IMAPMailbox, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mailbox.open_folder(folder)
    [first, *_] = mailbox.fetch(mailbox.uids_above(0))
    assert first.raw
    words = first.raw.strip().splitlines()[-1].decode()
    assert len(words) > 3
    assert words not in caplog.text


def test_nothing_new_is_an_empty_list_although_the_server_names_the_last_email(
    mailbox: IMAPMailbox, folder: str
) -> None:
    mailbox.open_folder(folder)
    first, last = mailbox.uids_above(0)
    assert mailbox.uids_above(last) == []
    assert mailbox.uids_above(first) == [last]
    assert mailbox.uids_above(last + 1000) == []
    assert mailbox.uids_above(0, up_to=first) == [first]
    assert mailbox.uids_above(last, up_to=first) == []


def test_an_email_that_vanished_is_gone_and_the_others_come(
    server: EmbeddedIMAP, mailbox: IMAPMailbox, folder: str
) -> None:
    mailbox.open_folder(folder)
    first, last = mailbox.uids_above(0)
    with other(server) as client:
        client.select_folder(folder)
        client.delete_messages([first])
        client.expunge([first])
    mailbox.open_folder(folder)  # pymap keeps what a session has seen until then
    gone, there = mailbox.fetch([first, last])
    assert (gone.raw, gone.problem) == (None, GONE)
    assert there.raw == RAW % (2, 2)


def test_a_missing_folder_is_told_with_those_that_exist(mailbox: IMAPMailbox, folder: str) -> None:
    with pytest.raises(FolderMissingError, match=rf"no folder 'Inbux'.*'INBOX'.*'{folder}'"):
        mailbox.open_folder("Inbux")


def test_folder_names_in_any_script_are_listed_and_opened(server: EmbeddedIMAP, mailbox: IMAPMailbox) -> None:
    with other(server) as client:
        client.create_folder("Rückfragen & サポート")
    assert "Rückfragen & サポート" in mailbox.folders()
    assert mailbox.open_folder("Rückfragen & サポート").exists == 0


def listen(mailbox: IMAPMailbox, seconds: float) -> bool:
    """Idle as the poller does; whether the server announced something."""
    if not mailbox.start_idle():
        return False
    end, heard = time.monotonic() + seconds, mailbox.heard()
    while not heard and (left := end - time.monotonic()) > 0:
        ready, _, _ = select.select([mailbox.fileno()], [], [], left)
        heard = bool(ready) and mailbox.heard()
    mailbox.stop_idle()
    return heard


def test_waiting_ends_when_an_email_arrives(server: EmbeddedIMAP, mailbox: IMAPMailbox, folder: str) -> None:
    mailbox.open_folder(folder)
    last = mailbox.uids_above(0)[-1]
    with other(server) as client:
        timer = Timer(0.3, client.append, (folder, RAW % (3, 3)))
        timer.start()
        assert listen(mailbox, 8)
        timer.join()
    assert mailbox.uids_above(last) == [last + 1]


def test_waiting_ends_by_itself_and_the_connection_goes_on(mailbox: IMAPMailbox, folder: str) -> None:
    mailbox.open_folder(folder)
    assert not listen(mailbox, 0.2)
    assert not listen(mailbox, 0.2)
    assert len(mailbox.uids_above(0)) == 2


def test_the_capabilities_are_those_after_sign_in(mailbox: IMAPMailbox) -> None:
    assert {"IMAP4REV1", "IDLE"} <= mailbox.capabilities


# --- what goes wrong when connecting


def test_a_wrong_password_is_told_in_the_servers_words_and_without_the_password(server: EmbeddedIMAP) -> None:
    wrong = account(server.port, security="starttls", ca_file=_ca(server), password="hunter2")
    with pytest.raises(MailboxLoginError, match=r"AUTHENTICATIONFAILED.*briefbox mailbox") as caught:
        IMAPMailbox(wrong).open()
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(wrong)


def test_an_unreachable_server_is_worth_another_try() -> None:
    with pytest.raises(MailboxError, match=r"cannot be reached \(Connection refused\)") as caught:
        IMAPMailbox(account(free_port())).open()
    assert not caught.value.permanent


def test_an_unknown_host_names_the_host() -> None:
    with pytest.raises(MailboxError, match=r"mail\.nowhere\.invalid cannot be found"):
        IMAPMailbox(account(993, host="mail.nowhere.invalid", security="tls")).open()


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_a_certificate_of_an_unknown_authority_is_refused(server: EmbeddedIMAP, security: str) -> None:
    port = server.tls_port if security == "tls" else server.port
    assert port is not None
    with pytest.raises(MailboxTLSError, match=r"does not verify.*--ca-file") as caught:
        IMAPMailbox(account(port, security=security)).open()
    assert caught.value.permanent


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "mail.example.org")
    with (
        EmbeddedIMAP(
            {USER: PASSWORD}, tls_port=0, cert_file=certificate.cert_file, key_file=certificate.key_file
        ) as server,
        pytest.raises(MailboxTLSError, match="not valid for '127.0.0.1'"),
    ):
        assert server.tls_port is not None
        IMAPMailbox(account(server.tls_port, security="tls", ca_file=certificate.ca_file)).open()


def test_a_verified_certificate_is_all_that_tls_needs(server: EmbeddedIMAP) -> None:
    assert server.tls_port is not None
    with IMAPMailbox(account(server.tls_port, security="tls", ca_file=_ca(server))) as mailbox:
        assert "INBOX" in mailbox.folders()


def test_starttls_is_not_done_without() -> None:
    with (
        ScriptedIMAP({}) as server,
        pytest.raises(MailboxTLSError, match=r"does not offer STARTTLS.*--security tls"),
    ):
        IMAPMailbox(account(server.port, security="starttls")).open()
    assert not [command for command in server.commands if command.startswith("LOGIN")]


def test_tls_on_a_plain_port_says_which_setting_fits(server: EmbeddedIMAP) -> None:
    with pytest.raises(MailboxTLSError, match="--security starttls"):
        IMAPMailbox(account(server.port, security="tls")).open()


def test_a_password_goes_over_the_network_in_plain_text_only_if_the_account_says_so() -> None:
    with pytest.raises(MailboxTLSError, match="unencrypted"):
        IMAPMailbox(account(143, host="mail.example.org")).open()


def test_a_missing_authority_file_names_the_file(server: EmbeddedIMAP, tmp_path: Path) -> None:
    with pytest.raises(MailboxTLSError, match=r"nothing\.pem.*--ca-file"):
        IMAPMailbox(account(server.port, security="tls", ca_file=tmp_path / "nothing.pem")).open()


def test_a_line_break_in_the_password_is_not_sent() -> None:
    with pytest.raises(MailboxLoginError, match="line break"):
        IMAPMailbox(account(1, password="x\r\nA1 DELETE INBOX")).open()


def test_something_else_than_imap_is_told_so() -> None:
    with (
        ScriptedIMAP({}, greeting=b"220 smtp.example.org ESMTP\r\n") as server,
        pytest.raises(MailboxProtocolError, match="220 smtp"),
    ):
        IMAPMailbox(account(server.port)).open()


@pytest.mark.parametrize(
    "said", [b"NO [UNAVAILABLE] Temporary authentication failure.", b"NO [ALERT] Too many connections"]
)
def test_a_server_with_a_bad_day_is_no_wrong_password(said: bytes) -> None:
    with ScriptedIMAP({"LOGIN": b"TAG %s\r\n" % said}) as server, pytest.raises(MailboxError) as caught:
        IMAPMailbox(account(server.port)).open()
    assert not caught.value.permanent


def test_a_connection_that_ends_during_sign_in_is_no_wrong_password() -> None:
    with ScriptedIMAP({"LOGIN": None}) as server, pytest.raises(MailboxError) as caught:
        IMAPMailbox(account(server.port)).open()
    assert not caught.value.permanent


# --- what goes wrong later


@pytest.fixture
def scripted() -> Iterator[Callable[..., IMAPMailbox]]:
    """`scripted({"UID FETCH": answer})` is an open mailbox on a server that answers so."""
    opened: list[tuple[ScriptedIMAP, IMAPMailbox]] = []

    def scripted(answers: dict[str, bytes | None], **values: Any) -> IMAPMailbox:
        server = ScriptedIMAP(answers).__enter__()
        mailbox = IMAPMailbox(account(server.port, **values))
        opened.append((server, mailbox))
        mailbox.open()
        mailbox.open_folder("INBOX")
        return mailbox

    yield scripted
    for server, mailbox in opened:
        mailbox.close()
        server.__exit__()


Scripted = Callable[..., IMAPMailbox]
GOOD = b'* 1 FETCH (UID 1 BODY[] {5}\r\nhello RFC822.SIZE 5 INTERNALDATE "01-Mar-2026 08:00:00 +0100")\r\n'
ODD = b"* 2 FETCH (UID 2 BODY[] nonsense(\r\n"


def test_an_answer_that_cannot_be_understood_costs_only_its_own_email(scripted: Scripted) -> None:
    mailbox = scripted(
        {
            "UID FETCH 1,2": GOOD + ODD + b"TAG OK done\r\n",
            "UID FETCH 1 ": GOOD + b"TAG OK done\r\n",
            "UID FETCH 2 ": ODD + b"TAG OK done\r\n",
        }
    )
    good, bad = mailbox.fetch([1, 2])
    assert (good.raw, good.internal_date) == (b"hello", datetime(2026, 3, 1, 7, tzinfo=UTC))
    assert bad.raw is None
    assert "does not give this email" in bad.problem


def test_an_email_that_the_server_refuses_is_told_in_its_words(scripted: Scripted) -> None:
    mailbox = scripted(
        {
            "UID FETCH 2 (BODY": b"TAG NO Message is corrupted\r\n",
            "UID FETCH 2 (FLAGS": b"* 2 FETCH (UID 2 FLAGS ())\r\nTAG OK done\r\n",
        }
    )
    assert "Message is corrupted" in mailbox.fetch([2])[0].problem


def test_a_server_that_refuses_everything_condemns_no_email(scripted: Scripted) -> None:
    mailbox = scripted({"UID FETCH": b"TAG NO not now\r\n"})
    with pytest.raises(MailboxError, match="not now"):
        mailbox.fetch([1])
    mailbox = scripted({"UID FETCH": b"TAG NO [UNAVAILABLE] later\r\n"})
    with pytest.raises(MailboxError, match="later"):
        mailbox.fetch([1, 2])


@pytest.mark.parametrize("body", [b"BODY[] NIL", b'BODY[] ""', b"FLAGS (\\Seen)"])
def test_an_email_that_is_listed_and_empty_is_not_called_gone(scripted: Scripted, body: bytes) -> None:
    mailbox = scripted(
        {
            "UID FETCH": b"* 1 FETCH (UID 1 %s)\r\nTAG OK done\r\n" % body,
            "UID SEARCH": b"* SEARCH 1\r\nTAG OK done\r\n",
        }
    )
    (email,) = mailbox.fetch([1])
    assert "empty answer" in email.problem


def test_a_uid_without_an_answer_is_asked_for_once_more(scripted: Scripted) -> None:
    mailbox = scripted(
        {"UID FETCH": b"TAG OK done\r\n", "UID SEARCH": b"* SEARCH\r\nTAG OK done\r\n", "LOGOUT": None}
    )
    assert mailbox.fetch([1])[0].problem == GONE


def test_the_end_of_the_connection_during_idle_is_an_error_and_no_busy_loop(scripted: Scripted) -> None:
    mailbox = scripted({"IDLE": b"+ idling\r\n" + ScriptedIMAP.CLOSE})
    with pytest.raises(MailboxError, match="broke"):
        listen(mailbox, 5)


def test_a_bye_during_idle_is_an_error(scripted: Scripted) -> None:
    mailbox = scripted({"IDLE": b"+ idling\r\n* BYE idle for too long\r\n"})
    with pytest.raises(MailboxError, match="idle for too long"):
        listen(mailbox, 0.2)


def test_a_silent_server_is_left_after_the_timeout(scripted: Scripted) -> None:
    mailbox = scripted({"IDLE": b"+ idling\r\n", "DONE": b""}, timeout=0.5)
    with pytest.raises(MailboxError, match=r"did not answer within 0\.5 seconds"):
        listen(mailbox, 0.1)


def test_idle_that_is_throttled_is_tried_again_and_one_that_is_refused_is_not(scripted: Scripted) -> None:
    for said, asked_again in ((b"Request is throttled.", True), (b"not here", False)):
        server_says = {"IDLE": b"TAG BAD " + said + b"\r\n", "UID SEARCH": b"* SEARCH\r\nTAG OK done\r\n"}
        mailbox = scripted(server_says)
        assert [mailbox.start_idle(), mailbox.start_idle()] == [False, False]
        assert mailbox._idle_refused is not asked_again
        assert mailbox.uids_above(0) == []


def test_a_server_without_idle_says_so(scripted: Scripted) -> None:
    assert not scripted({"CAPABILITY": b"* CAPABILITY IMAP4rev1\r\nTAG OK done\r\n"}).start_idle()


@pytest.mark.parametrize(
    ("said", "is_news"),
    [
        (b"* OK Still here\r\n", False),
        (b"* 1 FETCH (FLAGS (\\Seen))\r\n* 2 EXPUNGE\r\n", False),
        (b"* 3 EXISTS\r\n", True),
        (b"* OK Still here\r\n* 3 EXISTS\r\n", True),
        (b"* OK [ALERT] going down\r\n", True),
    ],
)
def test_only_what_may_be_new_mail_ends_the_waiting(scripted: Scripted, said: bytes, is_news: bool) -> None:
    assert listen(scripted({"IDLE": b"+ idling\r\n" + said}), 0.3) is is_news


def test_news_before_the_go_ahead_and_half_a_line_of_it_are_heard(scripted: Scripted) -> None:
    early = scripted({"IDLE": b"* 3 EXISTS\r\n+ idling\r\n"})
    assert listen(early, 0.3)
    assert listen(early, 0.3)
    halved = scripted({"IDLE": b"+ idling\r\n* 3 EX", "DONE": b"ISTS\r\nTAG OK done\r\n"})
    assert listen(halved, 0.3)
    assert halved.open_folder("INBOX").exists == 2, "the stream is where it should be"


def test_a_reader_that_is_broken_off_gets_an_error_at_once(scripted: Scripted) -> None:
    mailbox = scripted({"UID SEARCH": b""}, timeout=20)
    Timer(0.2, mailbox.abort).start()
    started = time.monotonic()
    with pytest.raises(MailboxError):
        mailbox.uids_above(0)
    assert time.monotonic() - started < 10


ESEARCH = b"* CAPABILITY IMAP4rev1 IDLE ESEARCH\r\nTAG OK done\r\n"


@pytest.mark.parametrize(
    ("answer", "uids"),
    [
        (b'* ESEARCH (TAG "x") UID ALL 2,4:6,9\r\nTAG OK done\r\n', [2, 4, 5, 6, 9]),
        (b'* ESEARCH (TAG "x") UID\r\nTAG OK done\r\n', []),
    ],
)
def test_uids_come_as_ranges_where_the_server_can(scripted: Scripted, answer: bytes, uids: list[int]) -> None:
    assert scripted({"CAPABILITY": ESEARCH, "UID SEARCH RETURN": answer}).uids_above(1) == uids


@pytest.mark.parametrize(
    "answer",
    [
        b"TAG BAD what?\r\n",
        b"TAG OK done\r\n",
        b'* ESEARCH (TAG "x") UID ALL 1:99999999999\r\nTAG OK done\r\n',
    ],
)
def test_a_server_that_cannot_say_ranges_although_it_says_so_is_asked_as_usual(
    scripted: Scripted, answer: bytes
) -> None:
    mailbox = scripted(
        {
            "CAPABILITY": ESEARCH,
            "UID SEARCH RETURN": answer,
            "UID SEARCH UID": b"* SEARCH 1 2\r\nTAG OK done\r\n",
        }
    )
    assert mailbox.uids_above(0) == [1, 2]


def test_a_folder_with_very_many_emails_is_searched_in_windows(scripted: Scripted) -> None:
    mailbox = scripted(
        {
            "EXAMINE": b"* 120000 EXISTS\r\n* OK [UIDVALIDITY 7] ok\r\n* OK [UIDNEXT 120001] ok\r\nTAG OK done\r\n",
            "UID SEARCH UID 1:50000": b"* SEARCH 1 50000\r\nTAG OK done\r\n",
            "UID SEARCH UID 50001:100000": b"* SEARCH 99999\r\nTAG OK done\r\n",
            "UID SEARCH UID 100001:*": b"* SEARCH 120000\r\nTAG OK done\r\n",
        }
    )
    assert mailbox.uids_above(0) == [1, 50000, 99999, 120000]


def test_an_answer_of_a_megabyte_is_read(scripted: Scripted) -> None:
    uids = range(1_000_000, 1_200_000)
    answer = b"* SEARCH " + b" ".join(b"%d" % uid for uid in uids) + b"\r\nTAG OK done\r\n"
    assert scripted({"UID SEARCH": answer}).uids_above(0) == list(uids)


def test_a_folder_without_uidvalidity_is_refused(scripted: Scripted) -> None:
    with pytest.raises(MailboxProtocolError, match="UIDVALIDITY"):
        scripted({"EXAMINE": b"* 2 EXISTS\r\nTAG OK done\r\n"})


def test_a_malformed_folder_name_does_not_hide_the_others(scripted: Scripted) -> None:
    mailbox = scripted(
        {
            "LIST": b'* LIST () "/" "&bad"\r\n* LIST () "/" INBOX\r\n* LIST (\\Noselect) "/" "[Gmail]"\r\nTAG OK done\r\n'
        }
    )
    assert mailbox.folders() == ["INBOX", "&bad"]


def test_using_a_closed_mailbox_is_a_clear_error(mailbox: IMAPMailbox) -> None:
    mailbox.close()
    mailbox.close()
    with pytest.raises(MailboxError, match="not open"):
        mailbox.folders()


# --- Dovecot


@pytest.mark.dovecot
@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_dovecot_is_read_and_nothing_in_it_changes(a_dovecot: Dovecot, security: str) -> None:
    a_dovecot.append(RAW % (1, 1), RAW % (2, 2))
    port = a_dovecot.tls_port if security == "tls" else a_dovecot.port
    before = _state(a_dovecot)
    with IMAPMailbox(of(a_dovecot, port=port, security=security, ca_file=a_dovecot.ca_file)) as mailbox:
        status = mailbox.open_folder("INBOX")
        uids = mailbox.uids_above(0)
        emails = mailbox.fetch(uids)
        assert not listen(mailbox, 0.1)
        assert mailbox.uids_above(uids[-1]) == []
    assert [email.raw for email in emails][-2:] == [RAW % (1, 1), RAW % (2, 2)]
    assert status.highest_modseq is not None
    assert _state(a_dovecot) == before
    assert not [flags for flags in before[1].values() if b"\\Seen" in flags]


def _state(server: Dovecot) -> tuple[dict[bytes, Any], dict[int, tuple[bytes, ...]]]:
    with server.client() as client:
        status = client.folder_status(
            "INBOX", ["MESSAGES", "UIDNEXT", "UIDVALIDITY", "HIGHESTMODSEQ", "UNSEEN"]
        )
        client.select_folder("INBOX", readonly=True)
        flags = {
            uid: tuple(flag for flag in flags if flag != b"\\Recent")
            for uid, flags in client.get_flags(client.search("ALL")).items()
        }
        return status, flags


@pytest.mark.dovecot
def test_dovecot_wakes_a_waiting_reader(a_dovecot: Dovecot) -> None:
    a_dovecot.append(RAW % (1, 1))
    with IMAPMailbox(of(a_dovecot)) as mailbox, a_dovecot.client() as client:
        mailbox.open_folder("INBOX")
        last = mailbox.uids_above(0)[-1]
        timer = Timer(0.3, client.append, ("INBOX", RAW % (2, 2)))
        timer.start()
        assert listen(mailbox, 15)
        timer.join()
        assert mailbox.uids_above(last) == [last + 1]


@pytest.mark.dovecot
def test_dovecot_refuses_a_wrong_password_and_misses_a_folder(a_dovecot: Dovecot) -> None:
    with pytest.raises(MailboxLoginError, match="AUTHENTICATIONFAILED"):
        IMAPMailbox(of(a_dovecot, password="wrong")).open()
    with (
        IMAPMailbox(of(a_dovecot)) as mailbox,
        pytest.raises(FolderMissingError, match=r"Archive.*it has 'INBOX'"),
    ):
        mailbox.open_folder("Archive")


@pytest.mark.dovecot
def test_an_email_expunged_behind_our_back_is_gone_on_dovecot(a_dovecot: Dovecot) -> None:
    a_dovecot.append(RAW % (1, 1), RAW % (2, 2))
    with IMAPMailbox(of(a_dovecot)) as mailbox, a_dovecot.client() as client:
        mailbox.open_folder("INBOX")
        *_, first, last = mailbox.uids_above(0)
        client.select_folder("INBOX")
        client.delete_messages([first])
        client.expunge([first])
        gone, there = mailbox.fetch([first, last])
        assert (gone.problem, there.raw) == (GONE, RAW % (2, 2))


# --- the fake


def test_the_fake_behaves_like_a_server() -> None:
    fake = FakeMailbox(["INBOX", "Sales"], uidvalidity=5)
    uids = [fake.append(RAW % (n, n)) for n in (1, 2, 3)]
    before = fake.fingerprint()
    with fake:
        assert fake.open_folder("INBOX").uidvalidity == 5
        assert fake.uids_above(1) == uids[1:]
        assert [email.raw for email in fake.fetch(uids)] == [RAW % (n, n) for n in (1, 2, 3)]
        with pytest.raises(FolderMissingError, match="'Sales'"):
            fake.open_folder("Archive")
    assert fake.fingerprint() == before
    assert fake.calls["fetch"] == 1


def test_the_fake_fails_as_told() -> None:
    fake = FakeMailbox()
    first, second = fake.append(b"a: b\n\n"), fake.append(b"c: d\n\n")
    fake.fail_next(MailboxError("the line is down"))
    fake.drop_on_fetch.add(first)
    fake.bad_on_fetch[second] = "spoiled"
    with fake:
        fake.open_folder("INBOX")
        with pytest.raises(MailboxError, match="the line is down"):
            fake.fetch([first])
        assert [email.problem for email in fake.fetch([first, second])] == [GONE, "spoiled"]


def test_the_fake_can_be_renumbered() -> None:
    fake = FakeMailbox()
    with fake:
        fake.append(b"a: b\n\n")
        fake.open_folder("INBOX")
        assert fake.uids_above(0) == [1]
        fake.renumber(9)
        assert fake.open_folder("INBOX").uidvalidity == 9
