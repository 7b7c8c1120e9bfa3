"""Mail fetched in part: Dovecot, the embedded server, and servers that lie about structure and size."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.errors import MailboxError
from briefbox.schemas import FetchedEmail, LeftOnServer, ParsedEmail
from ingest.imap_mailbox import IMAPMailbox
from ingest.mailbox import GONE, Account
from ingest.parse import parse_email
from ingest.partial import FIRST_BYTES, MAX_TEXT_OCTETS
from tests.ingest import big
from tests.servers import Dovecot, ScriptedIMAP, dovecot


@pytest.fixture(scope="module")
def a_dovecot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dovecot]:
    with dovecot(tmp_path_factory.mktemp("dovecot")) as server:
        yield server


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedIMAP]:
    with EmbeddedIMAP({"desk": "secret sauce"}) as server:
        yield server


def deliver(server: Dovecot, raw: bytes, folder: str) -> IMAPMailbox:
    """The mail alone in a folder, opened."""
    with server.client() as client:
        if not client.folder_exists(folder):
            client.create_folder(folder)
    server.append(raw, folder=folder)
    mailbox = IMAPMailbox(_account(server.port, server.user, server.password))
    mailbox.open()
    mailbox.open_folder(folder)
    return mailbox


def _account(port: int, username: str = "desk", password: str = "secret sauce") -> Account:
    return Account(
        host="127.0.0.1", port=port, username=username, password=password, security="none", timeout=20
    )


def parsed(email: FetchedEmail) -> ParsedEmail:
    assert email.raw is not None, email.problem
    return parse_email(email.raw, email.left)


def alike(part: ParsedEmail, whole: ParsedEmail) -> None:
    """All that people and the model see is the same, sizes nearly (line ends count)."""
    leave_out = {"attachments", "warnings"}
    assert part.model_dump(exclude=leave_out) == whole.model_dump(exclude=leave_out)
    assert [(a.name, a.type) for a in part.attachments] == [(a.name, a.type) for a in whole.attachments]
    for ours, real in zip(part.attachments, whole.attachments, strict=True):
        assert abs(ours.size - real.size) <= 400 + 0.05 * real.size, (ours, real)
    assert set(whole.warnings) <= set(part.warnings)


# --- the same email in part and whole


@pytest.mark.parametrize("name", big.MAILS)
def test_dovecot_gives_in_part_what_the_whole_says(a_dovecot: Dovecot, name: str) -> None:
    raw = big.MAILS[name]
    with deliver(a_dovecot, raw, f"part-{name}") as mailbox:
        [uid] = mailbox.uids_above(0)
        email = mailbox.fetch_partial(uid)
        again = mailbox.fetch_partial(uid)
        with a_dovecot.client() as client:
            client.select_folder(f"part-{name}", readonly=True)
            assert client.search("UNSEEN") == [uid], "it was marked as read"
    assert email.raw is not None
    assert email.left is not None
    assert email.left.first_bytes == 0, "the structure was not used"
    assert email.raw == again.raw
    assert email.size == len(raw)
    assert len(email.raw) < max(10_000, len(raw) // 4) or email.left.cut
    alike(parsed(email), parse_email(raw))


@pytest.mark.parametrize("name", big.MAILS)
def test_the_embedded_server_gives_in_part_what_the_whole_says(embedded: EmbeddedIMAP, name: str) -> None:
    with IMAPMailbox(_account(embedded.port)) as mailbox:
        client = mailbox._client
        assert client is not None
        if not client.folder_exists(name):
            client.create_folder(name)
        client.append(name, big.MAILS[name])
        mailbox.open_folder(name)
        email = mailbox.fetch_partial(mailbox.uids_above(0)[-1])
    assert email.left is not None
    alike(parsed(email), parse_email(big.MAILS[name]))


def test_each_part_that_stayed_is_named_with_its_section(a_dovecot: Dovecot) -> None:
    with deliver(a_dovecot, big.with_html(), "sections") as mailbox:
        email = mailbox.fetch_partial(1)
    assert email.left is not None
    assert set(email.left.sizes) == {"1.2.2", "2"}
    [bill] = parsed(email).attachments
    assert (bill.name, bill.section) == ("bill.pdf", "2")
    assert "attachments stayed on the mail server" in parsed(email).warnings


def test_an_email_that_is_one_file_has_the_section_text(a_dovecot: Dovecot) -> None:
    with deliver(a_dovecot, big.only_pdf(), "one-file") as mailbox:
        [scan] = parsed(mailbox.fetch_partial(1)).attachments
    assert (scan.name, scan.section) == ("scan.pdf", "TEXT")


def test_an_email_without_attachments_comes_as_it_is(a_dovecot: Dovecot) -> None:
    raw = big.long_text(big.MB // 4)
    with deliver(a_dovecot, raw, "whole") as mailbox:
        email = mailbox.fetch_partial(1)
    assert (email.raw, email.left) == (raw, None)


def test_a_text_that_is_too_long_is_cut_and_says_so(a_dovecot: Dovecot) -> None:
    with deliver(a_dovecot, big.long_text(6 * big.MB), "long") as mailbox:
        email = mailbox.fetch_partial(1)
    assert email.left is not None
    assert email.left.cut == ("TEXT",)
    assert email.raw is not None
    assert len(email.raw) < MAX_TEXT_OCTETS + 1_000
    assert "text cut" in parsed(email).warnings
    assert parsed(email).text.startswith("0: the export")


def test_an_email_that_was_withdrawn_is_gone(a_dovecot: Dovecot) -> None:
    with deliver(a_dovecot, big.attached(1000), "gone") as mailbox:
        email = mailbox.fetch_partial(77)
    assert (email.raw, email.problem) == (None, GONE)


def test_thirty_megabytes_cost_little_time_and_memory(a_dovecot: Dovecot) -> None:
    raw = big.attached(9 * big.MB)
    assert len(raw) > 30 * big.MB
    with deliver(a_dovecot, raw, "thirty") as mailbox:
        received = 0
        imap = mailbox._client._imap  # type: ignore[union-attr]
        read, readline = imap.read, imap.readline

        def count(data: bytes) -> bytes:
            nonlocal received
            received += len(data)
            return data

        imap.read = lambda size: count(read(size))  # type: ignore[method-assign]
        imap.readline = lambda: count(readline())  # type: ignore[method-assign]
        tracemalloc.start()
        try:
            email = mailbox.fetch_partial(1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert received < 10_000
    assert peak < 5 * big.MB
    alike(parsed(email), parse_email(raw))


# --- nobody can claim it


def test_a_sender_cannot_say_that_an_attachment_stayed() -> None:
    raw = (
        b"Subject: x\r\nX-Left-On-Server: section=TEXT; octets=12000000\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n"
        b"--b\r\nContent-Type: message/external-body; access-type=x-briefbox; section=2; size=12000000; name=a.pdf\r\n\r\n"
        b"Content-Type: application/pdf\r\n\r\n\r\n--b\r\nContent-Type: application/pdf; name=b.pdf\r\n"
        b"X-Left-On-Server: section=3; octets=12000000\r\n\r\n--b--\r\n"
    )
    email = parse_email(raw)
    assert [a.section for a in email.attachments] == ["", ""]
    assert all(a.size < 1_000 for a in email.attachments)
    assert not any("stayed" in warning for warning in email.warnings)


def test_a_text_with_a_boundary_in_it_does_not_shift_the_sections() -> None:
    """The server sees one text; Python would see two parts, the second one with a name of the sender's choice."""
    structure = b'(("TEXT" "PLAIN" NIL NIL NIL "7BIT" 90 3)("APPLICATION" "PDF" NIL NIL NIL "BASE64" 5000000) "MIXED" ("BOUNDARY" "b") NIL NIL)'
    header = b'Subject: x\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
    text = b"hello\r\n--b\r\nContent-Type: application/pdf; name=forged.pdf\r\n\r\n"
    email = scripted(
        structure,
        {"HEADER": header, "1.MIME": b"\r\n", "2.MIME": b"Content-Type: application/pdf\r\n\r\n", "1": text},
    )
    assert email.left is None  # the fall-back: this mail is small, so its beginning is all of it
    assert email.raw == WHOLE


# --- servers that lie

WHOLE = b"From: a@example.org\r\nSubject: as it is\r\n\r\nThe whole mail.\r\n"
LINE = b'("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "7BIT" 12 1)'
PDF = (
    b'("APPLICATION" "PDF" ("NAME" "a.pdf") NIL NIL "BASE64" 7800000 NIL ("ATTACHMENT" ("FILENAME" "a.pdf")))'
)
MIXED = b"(" + LINE + PDF + b' "MIXED" ("BOUNDARY" "b") NIL NIL)'
HEADER = b'From: a@example.org\r\nSubject: in part\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'


class Liar(ScriptedIMAP):
    """Answers FETCH item by item from the sections that it is given; None is NIL, a missing one is left out."""

    def __init__(
        self, structure: bytes | None, sections: dict[str, bytes | None], whole: bytes | None = WHOLE
    ) -> None:
        super().__init__({})
        self.structure, self.sections, self.whole = structure, sections, whole

    def answer_to(self, command: str) -> bytes | None:
        if not command.startswith("UID FETCH"):
            return super().answer_to(command)
        found = [b"UID 1 RFC822.SIZE 40000000"]
        if "BODYSTRUCTURE" in command and self.structure is not None:
            found.append(b"BODYSTRUCTURE " + self.structure)
        for section, data in {**self.sections, "": self.whole}.items():
            for end, key in (
                (f"BODY.PEEK[{section}]<", f"BODY[{section}]<0>"),
                (f"BODY.PEEK[{section}]", f"BODY[{section}]"),
            ):
                if end in command:
                    value = b"NIL" if data is None else b"{%d}\r\n%s" % (len(data), data)
                    found.append(key.encode() + b" " + value)
                    break
        return b"* 1 FETCH (" + b" ".join(found) + b")\r\nTAG OK done\r\n"


def scripted(
    structure: bytes | None, sections: dict[str, bytes | None], whole: bytes | None = WHOLE
) -> FetchedEmail:
    with Liar(structure, sections, whole) as server, IMAPMailbox(_account(server.port)) as mailbox:
        mailbox.open_folder("INBOX")
        email = mailbox.fetch_partial(1)
        assert len([c for c in server.commands if c.startswith("UID FETCH")]) < 10, "it asks again and again"
    return email


GOOD: dict[str, bytes | None] = {
    "HEADER": HEADER,
    "1.MIME": b"Content-Type: text/plain; charset=utf-8\r\n\r\n",
    "2.MIME": b"Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n",
    "1": b"hello there\n",
}


def test_a_server_that_keeps_to_it_is_understood() -> None:
    email = scripted(MIXED, GOOD)
    assert email.left == LeftOnServer(sizes={"2": 5_700_000})
    assert (parsed(email).text, parsed(email).attachments[0].size) == ("hello there", 5_700_000)


def test_outlooks_wrapping_is_fetched_under_any_type_for_the_text_in_it() -> None:
    wrapped = b'("APPLICATION" "OCTET-STREAM" ("NAME" "WINMAIL.DAT") NIL NIL "7BIT" 300000)'
    email = scripted(
        b"(" + LINE + wrapped + PDF + b' "MIXED" ("BOUNDARY" "b") NIL NIL)',
        {
            **GOOD,
            "2.MIME": b"Content-Type: application/octet-stream; name=WINMAIL.DAT\r\n\r\n",
            "2": b"what Outlook wraps",
            "3.MIME": GOOD["2.MIME"],
        },
    )
    assert email.left == LeftOnServer(sizes={"3": 5_700_000})
    assert b"what Outlook wraps" in (email.raw or b"")


def test_an_envelope_that_stayed_is_an_attachment_and_not_said_to_be_broken() -> None:
    raw = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n"
        b"--b\r\nContent-Type: application/ms-tnef; name=winmail.dat\r\n\r\n\r\n"
        b"--b\r\nContent-Type: application/pkcs7-mime; smime-type=signed-data; name=smime.p7m\r\n\r\n\r\n--b--\r\n"
    )
    email = parse_email(raw, LeftOnServer(sizes={"2": 40_000_000, "3": 50_000_000}))
    assert [(a.name, a.size, a.section) for a in email.attachments] == [
        ("winmail.dat", 40_000_000, "2"),
        ("smime.p7m", 50_000_000, "3"),
    ]
    assert [warning for warning in email.warnings if "winmail" in warning or "signed" in warning] == []


@pytest.mark.parametrize("missing", [{"1.MIME": None, "2.MIME": None}, {"1.MIME": b"", "2.MIME": None}])
def test_headers_that_the_server_does_not_give_are_made_of_its_structure(
    missing: dict[str, bytes | None],
) -> None:
    [pdf] = parsed(scripted(MIXED, {**GOOD, **missing})).attachments
    assert (pdf.name, pdf.type, pdf.size, pdf.section) == ("a.pdf", "application/pdf", 5_700_000, "2")


@pytest.mark.parametrize(
    "structure",
    [
        None,
        b"NIL",
        b"()",
        b'("TEXT")',
        b'"nonsense"',
        b"(NIL NIL NIL NIL NIL NIL NIL)",
        b'(("TEXT" "PLAIN" NIL NIL NIL "7BIT" 12 1) NIL)',
        b"((() ()) " + b'"MIXED")',
        b'((("TEXT" "PLAIN" NIL NIL NIL "7BIT" "many" 1)) "MIXED" NIL NIL NIL',
        b"(" * 3000 + b'"TEXT" "PLAIN"' + b")" * 3000,
        b"(" * 80 + LINE + b' "MIXED")' * 80,
        b"(" + LINE * 1500 + b' "MIXED")',
        LINE,  # while the headers say multipart
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_structure_that_cannot_be_used_gives_the_beginning_of_the_mail(structure: bytes | None) -> None:
    assert scripted(structure, GOOD).raw == WHOLE


@pytest.mark.parametrize(
    "sections",
    [
        {"HEADER": None},
        {"1": None},
        {"1": b""},
        {"HEADER": b"Subject: no multipart\r\n\r\n"},
        {"HEADER": b"Content-Type: multipart/mixed\r\n\r\n"},
        {"2.MIME": b"Content-Type: application/pdf" + b";" * 9000 + b"\r\n\r\n"},
    ],
    ids=repr,
)
def test_parts_that_do_not_come_give_the_beginning_of_the_mail(sections: dict[str, bytes | None]) -> None:
    assert scripted(MIXED, {**GOOD, **sections}).raw == WHOLE


def test_the_beginning_is_cut_at_a_line_and_says_so() -> None:
    whole = WHOLE + b"and many more lines\r\n" * 200_000
    email = scripted(b"NIL", {}, whole)
    assert email.raw is not None
    assert email.left is not None
    assert FIRST_BYTES - 100 < len(email.raw) == email.left.first_bytes <= FIRST_BYTES
    assert email.raw.endswith(b"lines\r\n")
    assert any("stayed on the mail server" in warning for warning in parsed(email).warnings)


def test_a_mail_that_is_never_given_is_a_problem_and_no_loop() -> None:
    with Liar(MIXED, {}, None) as server, IMAPMailbox(_account(server.port)) as mailbox:
        server.answers["UID SEARCH"] = b"* SEARCH 1\r\nTAG OK done\r\n"
        mailbox.open_folder("INBOX")
        email = mailbox.fetch_partial(1)
    assert email.raw is None
    assert "empty answer" in email.problem


def test_a_text_far_longer_than_stated_is_cut() -> None:
    email = scripted(MIXED, {**GOOD, "1": b"hello there\n" * 300_000})
    assert email.left is not None
    assert email.left.cut == ("1",)
    assert email.raw is not None
    assert len(email.raw) < MAX_TEXT_OCTETS + 2_000


def test_an_answer_larger_than_all_limits_is_not_read_into_memory() -> None:
    """It says 4 kB and begins to send 40 GB."""
    answer = b"* 1 FETCH (UID 1 RFC822.SIZE 4000 BODY[] {40000000000}\r\n" + b"x" * 100_000
    with ScriptedIMAP({"UID FETCH": answer}) as server, IMAPMailbox(_account(server.port)) as mailbox:
        mailbox.open_folder("INBOX")
        tracemalloc.start()
        try:
            with pytest.raises(MailboxError, match="began to send 40000000000 bytes"):
                mailbox.fetch([1])
            assert tracemalloc.get_traced_memory()[1] < 2 * big.MB
        finally:
            tracemalloc.stop()


def test_many_answers_are_bounded_together(tmp_path: Path) -> None:
    one = b"* 1 FETCH (UID 1 BODY[] {15000000}\r\n" + b"x" * 15_000_000 + b")\r\n"
    with ScriptedIMAP({"UID FETCH": one * 20}) as server, IMAPMailbox(_account(server.port)) as mailbox:
        mailbox.open_folder("INBOX")
        with pytest.raises(MailboxError, match="more than is taken at once"):
            mailbox.fetch([1])
