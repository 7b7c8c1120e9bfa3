"""What mail is wrapped in: winmail.dat, S/MIME, PGP, delivery reports, attached mail."""

import base64
import struct
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from briefbox.schemas import Attachment, EmailKind
from ingest.parse import parse_email
from ingest.smime import signed_content
from ingest.tnef import open_tnef, rtf_text, unpacked_rtf
from tests.ingest.mails import mail, multipart, part

# --- winmail.dat


def tnef_object(level: int, name: int, content: bytes) -> bytes:
    head = struct.pack("<BHHI", level, name, 6, len(content))
    return head + content + struct.pack("<H", sum(content) & 0xFFFF)


def properties(*values: tuple[int, int, bytes]) -> bytes:
    """MAPI properties (name, type, bytes)."""
    out = struct.pack("<I", len(values))
    for name, kind, data in values:
        out += struct.pack("<HH", kind, name)
        if kind in {0x1E, 0x1F, 0x102}:
            out += struct.pack("<II", 1, len(data)) + data + bytes(-len(data) % 4)
        else:
            out += data
    return out


def winmail(*objects: bytes) -> bytes:
    return struct.pack("<IH", 0x223E9F78, 1) + b"".join(objects)


FILE = (
    tnef_object(2, 0x9002, bytes(14))
    + tnef_object(2, 0x8010, b"BILL~1.PDF\0")
    + tnef_object(2, 0x800F, b"12345")
    + tnef_object(2, 0x9005, properties((0x3707, 0x1F, "Rechnung ü.pdf\0".encode("utf-16-le")), (0x370E, 0x1E, b"application/pdf\0")))
)  # fmt: skip
CODEPAGE = tnef_object(1, 0x9007, struct.pack("<II", 1252, 0))


def test_a_winmail_dat_gives_its_body_and_its_files() -> None:
    body = tnef_object(
        1, 0x9003, properties((0x0017, 3, struct.pack("<I", 1)), (0x1000, 0x1E, b"Gr\xfc\xdfe\r\nAna\0"))
    )
    raw = multipart(
        "mixed",
        part("text/plain", ""),
        part(
            "application/ms-tnef; name=winmail.dat",
            base64.encodebytes(winmail(CODEPAGE, body, FILE)),
            Content_Transfer_Encoding="base64",
        ),
    )
    parsed = parse_email(raw)
    assert parsed.text == "Grüße\nAna"
    assert parsed.attachments == (Attachment(name="Rechnung ü.pdf", type="application/pdf", size=5),)
    assert parsed.warnings == ()


def test_the_words_beside_a_winmail_dat_are_not_said_twice() -> None:
    body = tnef_object(1, 0x800C, b"Said inside\0")
    stream = base64.encodebytes(winmail(CODEPAGE, body))
    raw = multipart(
        "mixed",
        part("text/plain", "Said outside"),
        part("application/ms-tnef", stream, Content_Transfer_Encoding="base64"),
    )
    assert parse_email(raw).text == "Said outside"


def test_html_in_a_winmail_dat_is_seen_as_a_person_sees_it() -> None:
    page = "<p>Grüße</p><p style='display:none'>SECRET</p>".encode()
    opened = open_tnef(
        winmail(
            tnef_object(1, 0x9003, properties((0x3FDE, 3, struct.pack("<I", 65001)), (0x1013, 0x102, page)))
        )
    )
    assert opened is not None
    assert "Grüße" in opened.html
    raw = mail(
        base64.encodebytes(winmail(tnef_object(1, 0x9003, properties((0x1013, 0x102, page))))),
        Content_Type="application/ms-tnef",
        Content_Transfer_Encoding="base64",
    )
    parsed = parse_email(raw)
    assert parsed.text == "Grüße"
    assert parsed.hidden_text


# The example of MS-OXRTFCP, 3.1.1, and a text in it that refers to itself.
COMPRESSED = bytes.fromhex(
    "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0"
)


def test_a_body_that_is_only_compressed_rtf_is_read() -> None:
    assert unpacked_rtf(COMPRESSED) == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"
    body = tnef_object(1, 0x9003, properties((0x1009, 0x102, COMPRESSED)))
    raw = mail(
        base64.encodebytes(winmail(body)),
        Content_Type="application/ms-tnef",
        Content_Transfer_Encoding="base64",
    )
    assert parse_email(raw).text == "hello world"


def test_rtf_keeps_lines_and_letters_and_drops_what_is_no_text() -> None:
    rtf = rb"{\rtf1{\fonttbl{\f0 Arial;}}{\*\htmltag64 <p>}Gr\'fc\'dfe\par 5 \u8364?\line {\b bold} \{x\}\tab y}"
    assert rtf_text(rtf) == "Grüße\n5 €\nbold {x}\ty"


@pytest.mark.parametrize("cut", range(0, 160, 7))
def test_a_cut_winmail_dat_never_fails_and_is_told(cut: int) -> None:
    stream = winmail(CODEPAGE, tnef_object(1, 0x800C, b"Words\0"), FILE)[:cut]
    raw = multipart(
        "mixed",
        part("text/plain", "beside"),
        part(
            "application/ms-tnef; name=winmail.dat",
            base64.encodebytes(stream),
            Content_Transfer_Encoding="base64",
        ),
    )
    parsed = parse_email(raw)
    assert parsed.text == "beside"
    assert len(parsed.attachments) <= 1


# --- S/MIME


def signed(content: bytes) -> bytes:
    """An opaque-signed wrapping, in DER."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ana")])
    now = datetime(2026, 11, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content).add_signer(certificate, key, hashes.SHA256())
    return builder.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])


def without_lengths(content: bytes) -> bytes:
    """The same wrapping as programs write that do not know the length beforehand (BER), in two pieces."""
    half = len(content) // 2
    pieces = b"".join(
        b"\x04\x82" + len(one).to_bytes(2, "big") + one for one in (content[:half], content[half:])
    )
    data = b"\x30\x80\x06\x09" + bytes.fromhex("2a864886f70d010701") + b"\xa0\x80\x24\x80" + pieces + bytes(8)
    inner = b"\xa0\x80\x30\x80\x02\x01\x01\x31\x00" + data
    return b"\x30\x80\x06\x09" + bytes.fromhex("2a864886f70d010702") + inner + bytes(6)


INNER = part("text/plain; charset=utf-8", "Grüße, wo bleibt meine Lampe?")


@pytest.mark.parametrize("wrap", [signed, without_lengths])
@pytest.mark.parametrize(
    "kind", ["application/pkcs7-mime; smime-type=signed-data", "application/x-pkcs7-mime"]
)
def test_opaque_signed_mail_is_readable(wrap: type, kind: str) -> None:
    raw = mail(base64.encodebytes(wrap(INNER)), Content_Type=kind, Content_Transfer_Encoding="base64")
    parsed = parse_email(raw)
    assert parsed.text == "Grüße, wo bleibt meine Lampe?"
    assert parsed.warnings == ("signature not checked",)
    assert parsed.attachments == ()


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 20, 40, 60])
def test_a_cut_wrapping_is_no_content(cut: int) -> None:
    assert signed_content(without_lengths(INNER)[:cut]) is None


def test_encrypted_s_mime_is_said_to_be_encrypted() -> None:
    raw = mail(
        base64.encodebytes(b"\x30\x80\x06\x09" + bytes.fromhex("2a864886f70d010703") + bytes(40)),
        Content_Type="application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m",
        Content_Transfer_Encoding="base64",
    )
    parsed = parse_email(raw)
    assert (parsed.text, parsed.attachments) == ("", ())
    assert "encrypted" in parsed.warnings


def test_mail_with_a_detached_signature_is_its_text() -> None:
    raw = multipart(
        "signed", part("text/plain", "words"), part("application/pkcs7-signature; name=smime.p7s", "x")
    )
    parsed = parse_email(raw)
    assert (parsed.text, parsed.attachments) == ("words", ())


# --- PGP

CLEAR = """-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

Where is it?
- -- 
Ana
-----BEGIN PGP SIGNATURE-----

iQEzBAEBCAAdFiEE
-----END PGP SIGNATURE-----
After.
"""


def test_clear_signed_text_comes_without_its_armour() -> None:
    parsed = parse_email(mail(CLEAR))
    assert parsed.text == "Where is it?\n--\nAna\n\nAfter."
    assert parsed.warnings == ("signature not checked",)


def test_an_inline_encrypted_message_is_said_and_its_cipher_is_no_text() -> None:
    body = "For you:\n\n-----BEGIN PGP MESSAGE-----\n\nhQEMA-abc+/=\n=abcd\n-----END PGP MESSAGE-----\n"
    parsed = parse_email(mail(body))
    assert parsed.text == "For you:"
    assert parsed.warnings == ("encrypted",)


# --- delivery reports


def report(actions: str, returned: bytes = b"") -> bytes:
    parts = [
        part("text/plain", "Sorry."),
        part("message/delivery-status", f"Reporting-MTA: dns; mx\n\n{actions}"),
    ]
    if returned:
        parts.append(returned)
    return multipart(
        "report",
        *parts,
        Content_Type="multipart/report; report-type=delivery-status; boundary=b0",
        From="MAILER-DAEMON@mx.example",
        Return_Path="<>",
    )


FAILED = (
    "Final-Recipient: rfc822; ben@example.org\nAction: failed\nStatus: 5.1.1\n"
    "Diagnostic-Code: smtp; 550 5.1.1 No such\n user here\n"
)


@pytest.mark.parametrize(
    "returned",
    [
        part("message/rfc822", "Message-ID: <ours@larkspur.example>\nSubject: Hi\n\nbody"),
        part("text/rfc822-headers", "Subject: Hi\nMessage-Id:\n <ours@larkspur.example>"),
        part("message/rfc822", base64.encodebytes(b"Message-ID: <ours@larkspur.example>\n\nx"), Content_Transfer_Encoding="base64"),
    ],
)  # fmt: skip
def test_a_bounce_says_who_and_why_and_which_mail_came_back(returned: bytes) -> None:
    parsed = parse_email(report(FAILED, returned))
    assert parsed.kind == EmailKind.BOUNCE
    assert parsed.bounced_id == "ours@larkspur.example"
    assert parsed.text == (
        "Sorry.\n\nDelivery report: ben@example.org: failed (5.1.1 550 5.1.1 No such user here)"
    )


@pytest.mark.parametrize("action", ["delayed", "relayed", "delivered", "expanded"])
def test_a_report_of_no_failure_is_a_machines_mail_and_no_bounce(action: str) -> None:
    returned = part("text/rfc822-headers", "Message-ID: <ours@larkspur.example>")
    parsed = parse_email(report(FAILED.replace("failed", action), returned))
    assert parsed.kind == EmailKind.AUTO_REPLY
    assert f"Action: {action}" in parsed.kind_reason
    assert parsed.bounced_id == ""


def test_one_failure_among_several_recipients_is_a_bounce() -> None:
    delayed = "Final-Recipient: rfc822; a@example.org\nAction: delayed\n\n"
    parsed = parse_email(report(delayed + FAILED))
    assert parsed.kind == EmailKind.BOUNCE
    assert "a@example.org: delayed" in parsed.text
    assert "ben@example.org: failed" in parsed.text


# --- attached mail


def test_a_mail_of_nothing_but_an_attached_mail_is_a_forward() -> None:
    inner = (
        "From: Ana <ana@example.org>\nSubject: Broken\nContent-Type: text/html\n\n<p>My lamp is broken.</p>"
    )
    parsed = parse_email(multipart("mixed", part("message/rfc822", inner)))
    assert "My lamp is broken." in parsed.reply
    assert "From: Ana <ana@example.org>" in parsed.text
    assert [one.name for one in parsed.attachments] == ["Broken.eml"]
    assert "text is an attached mail's" in parsed.warnings


def test_a_digest_holds_mails() -> None:
    parsed = parse_email(multipart("digest", b"\nSubject: One\n\nfirst\n", b"\nSubject: Two\n\nsecond\n"))
    assert [one.name for one in parsed.attachments] == ["One.eml", "Two.eml"]
