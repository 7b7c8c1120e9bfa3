"""Big mail from a real server into the ledger, both choices about attachments, and one of them as a file."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest
from sqlmodel import select

from briefbox.db import Database
from briefbox.errors import InvalidValueError, MailboxError, NotFoundError
from briefbox.schemas import Attachment, ParsedEmail
from briefbox.settings import Settings
from briefbox.store import dead_letters, ledger, mailboxes, secrets
from briefbox.tables import Email, LedgerEntry, RawEmail
from briefbox.tables import Mailbox as MailboxRow
from ingest import again, attachment
from ingest.accounts import account_of
from ingest.folder import Folder
from ingest.imap_mailbox import IMAPMailbox
from ingest.look import look
from ingest.parse import parse_email
from ingest.pieces import decoded, read_part
from ingest.suspects import Suspects
from tests.ingest import big
from tests.servers import Dovecot, dovecot

NAMES = count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dovecot]:
    with dovecot(tmp_path_factory.mktemp("dovecot")) as server:
        yield server


class Inbox:
    """A watched folder of its own on the server, and the ledger behind it."""

    def __init__(self, server: Dovecot, database: Database, settings: Settings, row: MailboxRow) -> None:
        self.server, self.database, self.row = server, database, row
        self.settings = settings.model_copy(update={"max_email_bytes": 1_000_000})
        self.folder = f"big{next(NAMES)}"
        self.suspects = Suspects()
        with server.client() as client:
            client.create_folder(self.folder)
        with database.write() as session:
            stored = session.get_one(MailboxRow, row.id)
            stored.host, stored.port, stored.security, stored.start_at = (
                "127.0.0.1",
                server.port,
                "none",
                "all",
            )
            stored.username = server.user
            stored.password_encrypted = secrets.cipher(settings).encrypt(row.name, server.password)
        with database.read() as session:
            self.account = account_of(mailboxes.get_by_id(session, row.id), self.settings)

    def by_reference(self, choice: str = "reference") -> None:
        with self.database.write() as session:
            session.get_one(MailboxRow, self.row.id).attachments = choice

    def deliver(self, *raws: bytes) -> None:
        if raws:
            self.server.append(*raws, folder=self.folder)
        with self.database.write() as session:
            lease = mailboxes.claim(session, self.row.id, owner="test", seconds=60)
        assert lease is not None
        with IMAPMailbox(self.account) as mailbox:
            Folder(
                self.database, self.settings, lease, self.folder, lambda ids: ids, self.suspects
            ).reconcile(mailbox, in_full=True)
        with self.database.write() as session:
            mailboxes.release(session, lease)

    def email(self, subject: str) -> tuple[Email, ParsedEmail, RawEmail]:
        with self.database.read() as session:
            email = session.exec(select(Email).where(Email.subject == subject)).one()
            return email, ParsedEmail.model_validate(email.parsed), session.get_one(RawEmail, email.raw_id)

    def states(self) -> list[str]:
        with self.database.read() as session:
            return list(session.exec(select(LedgerEntry.state).order_by(LedgerEntry.uid)))  # type: ignore[arg-type]

    def save(self, email_id: int, wanted: str, path: Path) -> str:
        return attachment.save(self.database, self.settings, email_id, wanted, path)


@pytest.fixture
def inbox(server: Dovecot, database: Database, settings: Settings, mailbox: MailboxRow) -> Inbox:
    return Inbox(server, database, settings, mailbox)


Make = Callable[[int], bytes]
SMALL, MIDDLE = big.nameless(2_000), big.with_html(200_000)


def test_only_what_is_above_the_limit_leaves_its_attachments(inbox: Inbox) -> None:
    inbox.deliver(SMALL, MIDDLE, big.attached())
    assert inbox.states() == ["queued"] * 3
    _, whole, raw = inbox.email("Pictures inside")
    assert (raw.sha256, raw.left) == (sha256(MIDDLE).hexdigest(), {})
    assert [a.section for a in whole.attachments] == [""]
    email, parsed, raw = inbox.email("Three files")
    assert [a.section for a in parsed.attachments] == ["2", "3", "4"]
    assert parsed.text == parse_email(big.attached(1)).text
    assert parsed.warnings == ("attachments stayed on the mail server",)
    assert raw.size < 3_000
    assert set(raw.left["sizes"]) == {"2", "3", "4"}
    with inbox.database.read() as session:
        entry = session.exec(select(LedgerEntry).where(LedgerEntry.email_id == email.id)).one()
    assert entry.size == len(big.attached())


def test_by_reference_attachments_stay_and_small_mail_comes_whole(inbox: Inbox) -> None:
    inbox.by_reference()
    text = big.long_text(300_000)
    inbox.deliver(SMALL, MIDDLE, text)
    assert inbox.states() == ["queued"] * 3
    assert [a.section for a in inbox.email("No names")[1].attachments] == [""] * 3
    assert [a.section for a in inbox.email("Pictures inside")[1].attachments] == ["2"]
    assert inbox.email("A very long text")[2].sha256 == sha256(text).hexdigest(), "it has nothing to leave"


@pytest.mark.parametrize("by_reference", [False, True])
def test_the_same_big_mail_twice_is_a_sighting(inbox: Inbox, by_reference: bool) -> None:
    if by_reference:
        inbox.by_reference()
    inbox.deliver(big.attached(), big.attached())
    inbox.deliver(big.attached(999_999), big.nested(), big.nested())
    # One of another size is another mail, though all that was fetched of it reads the same.
    assert inbox.states() == ["queued", "sighting", "queued", "queued", "sighting"]


@pytest.mark.parametrize("whole_first", [True, False])
def test_a_changed_choice_makes_no_second_email_of_the_same_mail(inbox: Inbox, whole_first: bool) -> None:
    when = datetime(2026, 11, 23, 10, tzinfo=UTC)
    for by_reference in (not whole_first, whole_first):
        inbox.by_reference("reference" if by_reference else "keep")
        with inbox.server.client() as client:  # as after a move, or a folder that was rebuilt
            client.append(inbox.folder, MIDDLE, msg_time=when)
        inbox.deliver()
    assert inbox.states() == ["queued", "sighting"]
    with inbox.database.read() as session:
        assert "Message-ID, date and size" in session.exec(select(LedgerEntry.reason)).all()[-1]
    inbox.deliver(MIDDLE)  # at another time, or of another size: better twice than lost
    other = MIDDLE.replace(b"the bell is broken", b"the bell is stolen")
    with inbox.server.client() as client:
        client.append(inbox.folder, other + b"x", msg_time=when)
    inbox.deliver()
    assert inbox.states()[2:] == ["queued", "queued"]


def test_what_stayed_is_known_when_the_bytes_are_read_again(inbox: Inbox) -> None:
    inbox.deliver(big.attached())
    email, parsed, _ = inbox.email("Three files")
    with inbox.database.read() as session:
        raw, left = ledger.raw_bytes(session, email.raw_id), ledger.left_on_server(session, email.raw_id)
    assert parse_email(raw, left) == parsed


def test_a_big_mail_that_broke_the_connection_can_be_fetched_again(inbox: Inbox) -> None:
    inbox.suspects._breaks[inbox.folder, 1] = 99
    inbox.deliver(big.attached())
    assert inbox.states() == ["dead"]
    with inbox.database.read() as session:
        [letter] = dead_letters.unresolved(session)
    assert "the connection broke" in letter.reason
    said = again.retry(inbox.database, inbox.settings, letter.id, actor="test")
    assert "waits for a brief" in said
    _, parsed, raw = inbox.email("Three files")
    assert [a.section for a in parsed.attachments] == ["2", "3", "4"]
    assert raw.left["sizes"]


def test_looking_at_a_mailbox_does_not_fetch_its_big_mails(inbox: Inbox) -> None:
    inbox.server.append(big.attached(9 * big.MB), folder=inbox.folder)
    with inbox.database.read() as session:
        row = mailboxes.get_by_id(session, inbox.row.id)
    row.folders = [inbox.folder]
    assert [mail["subject"] for mail in look(row, inbox.settings)["newest"]] == ["Three files"]


# --- one attachment


@pytest.mark.parametrize(
    ("wanted", "size", "seed"),
    [("contract.pdf", big.MB, 1), ("2", big.MB, 2), ("Prüfung – März.zip", big.MB // 2, 3)],
)
def test_an_attachment_that_stayed_is_fetched_to_a_file(
    inbox: Inbox, tmp_path: Path, wanted: str, size: int, seed: int
) -> None:
    inbox.deliver(big.attached())
    email, _, _ = inbox.email("Three files")
    said = inbox.save(email.id, wanted, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == big.noise(size, seed)
    assert said.startswith(f"{size} bytes of")
    assert "from the mail server" in said
    with inbox.server.client() as client:
        client.select_folder(inbox.folder, readonly=True)
        assert client.search("UNSEEN") == [1]


def test_a_mail_that_is_one_file_and_an_attached_mail_come_from_the_server_too(
    inbox: Inbox, tmp_path: Path
) -> None:
    inbox.deliver(big.only_pdf(), big.nested())
    inbox.save(inbox.email("Scan 0001")[0].id, "scan.pdf", tmp_path / "scan.pdf")
    assert (tmp_path / "scan.pdf").read_bytes() == big.noise(big.MB)
    inbox.save(inbox.email("Fwd three mails")[0].id, "1", tmp_path / "inner.eml")
    inner = parse_email((tmp_path / "inner.eml").read_bytes())
    assert (inner.subject, inner.attachments[0].size) == ("The first complaint", big.MB)


def test_an_attachment_that_is_kept_comes_from_the_stored_bytes(inbox: Inbox, tmp_path: Path) -> None:
    inbox.deliver(MIDDLE, SMALL, big.nested(50_000))
    assert "from the stored email" in inbox.save(
        inbox.email("Pictures inside")[0].id, "bill.pdf", tmp_path / "bill"
    )
    assert (tmp_path / "bill").read_bytes() == big.noise(200_000, 2)
    inbox.save(inbox.email("No names")[0].id, "3", tmp_path / "third")
    assert (tmp_path / "third").read_bytes() == big.noise(2_000, 2)
    inbox.save(inbox.email("Fwd three mails")[0].id, "1", tmp_path / "inner.eml")
    assert parse_email((tmp_path / "inner.eml").read_bytes()).subject == "The first complaint"


def test_what_cannot_be_had_is_said_in_a_sentence(inbox: Inbox, tmp_path: Path) -> None:
    inbox.deliver(big.attached())
    email, _, _ = inbox.email("Three files")
    with pytest.raises(
        NotFoundError, match="no attachment 'x.doc'; expected .* 1: 'contract.pdf', 2: 'wheel.jpg'"
    ):
        inbox.save(email.id, "x.doc", tmp_path / "file")
    with pytest.raises(NotFoundError, match="There is no email 4711"):
        inbox.save(4711, "x", tmp_path / "file")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(InvalidValueError, match="exists already"):
        inbox.save(email.id, "1", tmp_path / "there")
    with pytest.raises(InvalidValueError, match="cannot be written"):
        inbox.save(email.id, "1", tmp_path / "no folder" / "file")
    with inbox.server.client() as client:
        client.select_folder(inbox.folder)
        client.delete_messages([1])
        client.expunge()
    with pytest.raises(NotFoundError, match=r"stayed on the mail server .* is not there any more"):
        inbox.save(email.id, "1", tmp_path / "file")
    with inbox.server.client() as client:
        client.delete_folder(inbox.folder)
    with pytest.raises(NotFoundError, match="is not there any more"):
        inbox.save(email.id, "1", tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} <= {"there", "data"}, "half a file was left behind"


# --- decoding, in pieces of any size


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("encoding", "source", "expected"),
    [
        ("base64", b"aGVs\r\nbG8g\r\nd29y\r\nbGQ=\r\n", b"hello world"),
        ("base64", b"aGVsbG8=\r\nIHdvcmxk\r\n", b"hello world"),
        ("base64", b"aGVsbG8gd29ybGQ", b"hello world"),
        ("base64", b"aGVsbG8gd29ybGQ=x", b"hello world"),
        ("quoted-printable", b"Gr=C3=BC=\r\n=C3=9Fe\r\nand=20more", b"Gr\xc3\xbc\xc3\x9fe\r\nand more"),
        ("8bit", b"as it is\r\n", b"as it is\r\n"),
    ],
)
def test_pieces_are_decoded_across_their_ends(
    encoding: str, source: bytes, expected: bytes, size: int
) -> None:
    pieces = [source[at : at + size] for at in range(0, len(source), size)]
    assert b"".join(decoded(pieces, encoding)) == expected


def test_a_server_that_repeats_itself_does_not_fill_the_disk() -> None:
    def ask(items: list[str]) -> dict[bytes, object]:
        return {b"BODY[2]<0>": b"x" * 1_000_000} if items[0].startswith("BODY.PEEK[2]<") else {}

    with pytest.raises(MailboxError, match="more of part 2"):
        list(read_part(ask, "2", most=5_000_000))
    with pytest.raises(MailboxError, match="empty answer for part 3"):
        list(read_part(ask, "3", most=5_000_000))


def test_an_attachment_of_the_same_name_twice_is_told_by_its_number() -> None:
    two = (Attachment(name="a", type="t/t", size=1), Attachment(name="a", type="t/t", size=2))
    assert attachment.choose(two, 1, "a") == 0
    assert attachment.choose(two, 1, "2") == 1
