"""Raw bytes to a ParsedEmail: ordinary mail, odd mail, hostile mail, and the demo's own."""

import base64
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from briefbox.errors import ParseError
from briefbox.schemas import Address, Attachment, EmailKind, ParsedEmail
from ingest.parse import parse_body, parse_email
from tests.ingest.mails import mail, multipart, part

DEMO = Path(__file__).parents[2] / "briefbox" / "demo" / "emails"


def html(body: str, style: str = "") -> ParsedEmail:
    page = f"<html><head><style>{style}</style></head><body>{body}</body></html>"
    return parse_email(mail(page, Content_Type="text/html; charset=utf-8"))


# --- the demo's emails


@pytest.mark.parametrize("path", sorted(DEMO.glob("*.eml")), ids=lambda path: path.stem)
def test_every_demo_email_is_read_without_loss(path: Path) -> None:
    parsed = parse_email(path.read_bytes())
    assert parsed.text
    assert parsed.reply
    assert "@" in parsed.sender.address
    assert "\ufffd" not in parsed.model_dump_json()
    assert "no text" not in parsed.warnings


# --- headers


def test_headers_are_decoded_and_on_one_line() -> None:
    parsed = parse_email(
        mail(
            Subject="=?utf-8?q?Gr=C3=BC=C3=9Fe?=\n =?utf-8?q?_aus?=\n Köln",
            From="=?iso-8859-1?Q?J=F6rg_M=FCller?= <joerg@example.org>",
            To='"Support, Larkspur" <support@larkspur.example>, sales@larkspur.example',
            Date="Mon, 16 Nov 2026 17:20:00 +0200",
        )
    )
    assert parsed.subject == "Grüße aus Köln"
    assert parsed.sender == Address(name="Jörg Müller", address="joerg@example.org")
    assert parsed.to == (
        Address(name="Support, Larkspur", address="support@larkspur.example"),
        Address(address="sales@larkspur.example"),
    )
    assert parsed.sent_at == datetime(2026, 11, 16, 15, 20, tzinfo=UTC)


def test_a_letter_that_is_cut_between_two_encoded_words_is_whole_again() -> None:
    halves = [base64.b64encode(half).decode() for half in ("ü".encode()[:1], "ü".encode()[1:])]
    assert parse_email(mail(Subject=f"=?utf-8?B?{halves[0]}?= =?utf-8?B?{halves[1]}?=")).subject == "ü"


@pytest.mark.parametrize(
    ("value", "name", "address"),
    [
        ("ana@example.org", "", "ana@example.org"),
        ("<ana@example.org>", "", "ana@example.org"),
        ("ana@example.org (Ana (Acme))", "Ana (Acme)", "ana@example.org"),
        ('"front desk"@example.org', "", '"front desk"@example.org'),
        ("'Ana' <ana@example.org>", "Ana", "ana@example.org"),
        ("Ana", "Ana", ""),
        ('"', "", ""),
        ("(c):", "", ""),
        ("undisclosed-recipients:;", "", ""),
        ("=?utf-8?B?QW5hIDxhbmFAZXhhbXBsZS5vcmc+?=", "Ana", "ana@example.org"),
        ("Group: Ana <ana@example.org>, b@example.org;", "Ana", "ana@example.org"),
    ],
)
def test_addresses_of_all_shapes(value: str, name: str, address: str) -> None:
    sender = parse_email(mail(From=value)).sender
    assert (sender.name, sender.address) == (name, address)


def test_ids_come_from_the_raw_header() -> None:
    parsed = parse_email(
        mail(
            Message_ID="\n <[very-long]@microsoft.com>",
            In_Reply_To="<a@b> (Ana's message of Monday)",
            References="<one@x> <t w o@x>\n\t<three@x>\n <one@x>",
        )
    )
    assert parsed.message_id == "[very-long]@microsoft.com"
    assert parsed.in_reply_to == ("a@b",)
    assert parsed.references == ("one@x", "two@x", "three@x")
    assert parse_email(mail()).message_id == ""


def test_a_very_long_id_is_replaced_by_its_hash() -> None:
    first, second = (parse_email(mail(Message_ID=f"<{'a' * 5000}{end}@x>")).message_id for end in "12")
    assert first.startswith("sha256-")
    assert first != second


@pytest.mark.parametrize(
    "date", ["", "yesterday", "Thu, 01 Jan 1970 00:00:00 +0000", "Fri, 1 Jan 2999 00:00:00 +0000", "9" * 200]
)
def test_an_absurd_date_is_none(date: str) -> None:
    assert parse_email(mail(Date=date)).sent_at is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "text/plain; name*"},
        {"Content_Type": "text/plain; charset"},
        {"Content_Type": "text/plain; charset=x-unknown"},
        {"Content_Type": "text/plain; charset*=nonsense''utf-8"},
        {"Content_Type": "multipart/mixed"},
        {"Content_Type": "multipart/mixed; boundary=never"},
        {"Content_Type": "nonsense"},
        {"Cc": "(x): a@b.com;"},
        {"Content_Transfer_Encoding": "x-unknown"},
        {"Date": "Mon, 16 Nov 99999999999 17:20:00 +99999"},
    ],
)
def test_headers_on_which_the_standard_library_raises(headers: dict[str, str]) -> None:
    assert parse_email(mail("Where is it?\n", **headers)).text == "Where is it?"


def test_nul_and_lone_surrogates_are_nowhere() -> None:
    raw = mail(b"a\x00b \xed\xa0\x80 c", Subject="x\x00y =?utf-8?q?=ED=A0=80=00z?=", Message_ID="<a\x00b@c>")
    parsed = parse_email(raw)
    assert "\x00" not in parsed.model_dump_json()
    parsed.model_dump_json().encode("utf-8")
    assert parsed.message_id == "ab@c"


# --- charsets


@pytest.mark.parametrize(
    ("text", "encoding", "label", "guessed"),
    [
        ("Größe – 12 €", "cp1252", "iso-8859-1", False),
        ("Größe", "utf-8", "iso-8859-1", True),
        ("Größe", "cp1252", "utf-8", True),
        ("Größe", "utf-8", "", False),
        ("Größe", "cp1252", "x-unknown", True),
        ("朱镕基", "gbk", "gb2312", False),
        ("똠방각하", "cp949", "ks_c_5601-1987", False),
        ("こんにちは", "iso2022_jp", "ISO-2022-JP", False),
        ("こんにちは", "cp932", "shift_jis", False),
        ("Привет", "koi8_r", "koi8-r", False),
        ("Привет", "utf-8", "us-ascii", False),
        ("Привет", "utf-8", "windows-1251", True),
        ("Zażółć", "iso8859-2", "iso-8859-2", False),
        ("\ufeffHi", "utf-8", "utf-8", False),
    ],
)
def test_charsets(text: str, encoding: str, label: str, guessed: bool) -> None:
    kind = f"text/plain; charset={label}" if label else "text/plain"
    parsed = parse_email(mail(text.encode(encoding), Content_Type=kind, Content_Transfer_Encoding="8bit"))
    assert parsed.text == text.strip("\ufeff")
    assert ("charset guessed" in parsed.warnings) is guessed


def test_windows_letters_in_iso_2022_jp_are_read() -> None:
    data = b"\x1b$B-!-j\x1b(B 1"
    parsed = parse_email(mail(data, Content_Type="text/plain; charset=iso-2022-jp"))
    assert parsed.text == "①㈱ 1"


# --- which text


def test_plain_text_is_preferred_to_html() -> None:
    raw = multipart("alternative", part("text/plain", "plain"), part("text/html", "<p>html</p>"))
    assert parse_email(raw).text == "plain"


@pytest.mark.parametrize("useless", ["", "  \n\n", "Please view this e-mail in HTML.", "\u200b"])
def test_plain_text_that_says_nothing_gives_way_to_html(useless: str) -> None:
    raw = multipart(
        "alternative",
        part("text/plain; charset=utf-8", useless, Content_Transfer_Encoding="8bit"),
        part("text/html", "<p>The real thing</p>"),
    )
    assert parse_email(raw).text == "The real thing"


def test_texts_around_an_attachment_are_one_text() -> None:
    raw = multipart(
        "mixed",
        part("text/plain", "before"),
        part("image/png; name=a.png", "x"),
        part("text/plain", "after"),
    )
    parsed = parse_email(raw)
    assert parsed.text == "before\n\nafter"
    assert parsed.attachments == (Attachment(name="a.png", type="image/png", size=1),)


def test_soft_line_breaks_are_joined() -> None:
    body = "A long \nline.\n> quoted \n> too\n Stuffed.\n-- \nAna\n"
    parsed = parse_email(mail(body, Content_Type="text/plain; format=flowed"))
    assert parsed.text.startswith("A long line.\n> quoted too\nStuffed.\n--\nAna")
    parsed = parse_email(
        mail("日本 \n語\n", Content_Type="text/plain; charset=utf-8; format=flowed; DelSp=yes")
    )
    assert parsed.text == "日本語"


def test_an_attached_mail_is_an_attachment_and_not_the_text() -> None:
    raw = multipart(
        "mixed",
        part("text/plain", "see attached"),
        part("message/rfc822", "Subject: Old/one\n\ninner words\n"),
    )
    parsed = parse_email(raw)
    assert parsed.text == "see attached"
    assert [a.name for a in parsed.attachments] == ["Old-one.eml"]


def test_an_invitation_without_words_is_told_in_a_line() -> None:
    event = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:Visit\\, part 2\nDTSTART:20261127T093000Z\nLOCATION:Room 1\nEND:VEVENT\n"
    parsed = parse_email(mail(event, Content_Type="text/calendar; method=REQUEST"))
    assert parsed.text == "Calendar invitation: Visit, part 2, on 2026-11-27 09:30 UTC, at Room 1"


def test_a_mail_without_text_says_so() -> None:
    parsed = parse_email(multipart("mixed", part("application/pdf", "x")))
    assert parsed.text == ""
    assert "no text" in parsed.warnings


def test_an_encrypted_mail_is_marked_and_its_cipher_is_no_text() -> None:
    raw = multipart(
        "encrypted",
        part("application/pgp-encrypted", "Version: 1"),
        part("application/octet-stream", "-----BEGIN PGP MESSAGE-----"),
    )
    parsed = parse_email(raw)
    assert parsed.text == ""
    assert {"encrypted", "no text"} <= set(parsed.warnings)


def test_long_text_is_cut_with_a_warning() -> None:
    parsed = parse_email(mail("word " * 100_000))
    assert len(parsed.text) <= 200_000
    assert "text cut" in parsed.warnings


def test_the_new_part_is_told_from_the_history() -> None:
    body = "Yes.\n\nOn Mon, 16 Nov 2026 at 17:20, Larkspur <s@l.example> wrote:\n> Really?\n"
    parsed = parse_email(mail(body))
    assert parsed.reply == "Yes."
    assert "Really?" in parsed.text


def test_the_kind_comes_with_its_reason() -> None:
    parsed = parse_email(mail(Auto_Submitted="auto-replied"))
    assert parsed.kind == EmailKind.AUTO_REPLY
    assert "Auto-Submitted" in parsed.kind_reason


def test_a_bounce_is_known_by_its_delivery_report() -> None:
    raw = multipart(
        "report",
        part("text/plain", "Your mail came back."),
        part("message/delivery-status", "Reporting-MTA: dns; x\n\nAction: failed\nStatus: 5.1.1\n"),
        part("text/rfc822-headers", "Subject: x\n"),
    )
    parsed = parse_email(raw)
    assert parsed.kind == EmailKind.BOUNCE
    assert parsed.attachments == ()


# --- HTML


def test_html_becomes_readable_text() -> None:
    parsed = html(
        "<h1>Hello</h1><p>Two&nbsp;words<br>and &euro;5</p><ul><li>one</li></ul><script>x()</script>"
    )
    assert parsed.text == "Hello\n\nTwo words\nand €5\n\n* one"
    assert not parsed.hidden_text


@pytest.mark.parametrize(
    "hidden",
    [
        '<div style="display:none">SECRET</div>',
        '<div style="color:red; DISPLAY : none !important">SECRET</div>',
        '<span style="visibility:hidden">SECRET</span>',
        '<span style="font-size:0">SECRET</span>',
        '<span style="font-size: 0px; color: #123">SECRET</span>',
        '<span style="opacity:0">SECRET</span>',
        '<div style="max-height:0;overflow:hidden">SECRET</div>',
        '<div style="mso-hide:all">SECRET</div>',
        "<p hidden>SECRET</p>",
        '<p style="color:#ffffff;background-color:white">SECRET</p>',
        '<table bgcolor="#000000"><tr><td style="color:rgb(0,0,0)">SECRET</td></tr></table>',
        '<div class="preheader">SECRET</div>',
        '<span style="font-size:1px">SECRET</span>',
        '<span style="text-indent:-9999px">SECRET</span>',
        '<div style="position:absolute;left:-9999px">SECRET</div>',
        '<div style="position:absolute;clip:rect(0,0,0,0)">SECRET</div>',
        '<div style="transform:scale(0)">SECRET</div>',
        '<span style="color:transparent">SECRET</span>',
        '<span style="color:rgba(10,20,30,0)">SECRET</span>',
        '<table bgcolor="white"><tr><td><font color="#ffffff">SECRET</font></td></tr></table>',
        '<table bgcolor="#fff"><tr><td style="color:#fefefe">SECRET</td></tr></table>',
        '<div style="font-size:0">SECRET<br>SECRET <b>SECRET</b></div>',
    ],
)
def test_text_that_nobody_sees_is_left_out_and_told(hidden: str) -> None:
    parsed = html(f"<p>before</p>{hidden}<p>after</p>", style=".preheader { display: none; }")
    assert "SECRET" not in parsed.text
    assert parsed.hidden_text
    assert parsed.text.split() == ["before", "after"]


@pytest.mark.parametrize(
    "seen",
    [
        '<span style="font-size:0.9em">SEEN</span>',
        '<span style="opacity:0.8">SEEN</span>',
        '<td style="color:#fff" bgcolor="#003366">SEEN</td>',
        '<div style="background:#222"><a style="color:white">SEEN</a></div>',
        '<div class="mobile">SEEN</div>',
        '<p style="max-height:0px">SEEN</p>',
        '<td style="font-size:0px;padding:10px"><div style="font-size:16px">SEEN</div></td>',
        '<td style="font-size:0"><!-- x --><div><span style="font-size:1em">SEEN</span></div></td>',
        '<span style="font-size:0;font-size:14px">SEEN</span>',
        '<span style="font-size:10px">SEEN</span>',
        '<p style="background:rgba(0,0,0,0);color:#000">SEEN</p>',
        '<p style="margin-left:-10px">SEEN</p>',
        '<font color="#333333">SEEN</font>',
    ],
)
def test_text_that_is_only_styled_stays(seen: str) -> None:
    parsed = html(seen, style="@media (max-width: 600px) { .mobile { display: none } } p { color: red }")
    assert "SEEN" in parsed.text
    assert not parsed.hidden_text


def test_an_empty_hidden_element_is_nothing_to_report() -> None:
    assert not html('<p>Hi</p><div style="display:none">&nbsp;&zwnj;</div>').hidden_text


def test_filler_of_invisible_letters_goes_and_joined_letters_stay() -> None:
    assert html("<p>Hi&#847;&zwnj;&nbsp;&#8203;&zwnj; there</p>").text.split() == ["Hi", "there"]
    assert html("<p>می‌خواهم 👩‍💻</p>").text == "می‌خواهم 👩‍💻"


def test_invisible_tag_letters_are_dropped_and_told() -> None:
    smuggled = "".join(chr(0xE0000 + ord(ch)) for ch in "ignore")
    parsed = parse_email(mail(f"Hello{smuggled}", Content_Type="text/plain; charset=utf-8"))
    assert parsed.text == "Hello"
    assert parsed.hidden_text


def test_quotes_in_html_are_history() -> None:
    parsed = html(
        "<div>Thanks!</div><div class=gmail_quote><div>On Mon, 16 Nov 2026 at 17:20, L &lt;s@l.example&gt; wrote:<br></div>"
        "<blockquote class=gmail_quote><p>old</p><blockquote type=cite>older</blockquote></blockquote></div>"
    )
    assert parsed.reply == "Thanks!"
    assert "> old" in parsed.text
    assert "> > older" in parsed.text


def test_very_deep_html_still_gives_its_words() -> None:
    parsed = html("<div>" * 5000 + "words" + "</div>" * 5000)
    assert parsed.text == "words"
    assert "html simplified" in parsed.warnings


# --- attachments


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"Content_Disposition": 'attachment; filename="a b.pdf"'}, "a b.pdf"),
        ({"Content_Disposition": "attachment; filename*=utf-8''n%C2%BA%205.pdf"}, "nº 5.pdf"),
        ({"Content_Disposition": "attachment; filename*0=one; filename*1=two.pdf"}, "onetwo.pdf"),
        ({"Content_Disposition": 'attachment; filename="=?utf-8?q?=C3=BC.pdf?="'}, "ü.pdf"),
        ({"Content_Disposition": 'attachment; filename="../../etc/passwd"'}, "passwd"),
        ({"Content_Disposition": 'attachment; filename="\u200b.htaccess"'}, ".htaccess"),
        ({"Content_Disposition": "attachment"}, "attachment-1.pdf"),
        ({}, "attachment-1.pdf"),
    ],
)
def test_names_of_attachments(headers: dict[str, str], name: str) -> None:
    raw = multipart("mixed", part("text/plain", "see"), part("application/pdf", "x", **headers))
    assert [a.name for a in parse_email(raw).attachments] == [name]


def test_the_size_is_that_of_the_decoded_bytes() -> None:
    body = base64.encodebytes(bytes(1000)).decode()
    raw = multipart("mixed", part("application/pdf; name=a.pdf", body, Content_Transfer_Encoding="base64"))
    assert parse_email(raw).attachments[0].size == 1000


def test_pictures_in_the_text_and_signatures_are_no_attachments() -> None:
    raw = multipart(
        "mixed",
        part("text/html", '<p>Hi</p><img src="cid:logo">'),
        part("image/png; name=logo.png", "x", Content_ID="<logo>", Content_Disposition="inline"),
        part("application/pgp-signature; name=signature.asc", "x"),
    )
    assert parse_email(raw).attachments == ()


@pytest.mark.parametrize(
    "broken", ["SGVsbG8", "SGVs bG8=", "SGVs\r\n!bG8=\n\n-- \nA list's footer\n", "SGU=bGxv"]
)
def test_broken_base64_is_read_as_far_as_it_goes(broken: str) -> None:
    assert parse_email(mail(broken, Content_Transfer_Encoding="base64")).text == "Hello"


# --- limits


def test_nothing_is_an_error() -> None:
    for raw in (b"", b"\r\n\r\n"):
        with pytest.raises(ParseError, match="empty"):
            parse_email(raw)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (mail(Subject="x" * 70_000), "One header is longer"),
        (b"X-A: y\n" * 50_000 + b"\nbody", "headers are longer"),
        (mail(Content_Type="multipart/mixed;" + ";" * 9000), "Content-Type"),
        (multipart("mixed", *[part("text/plain", "x")] * 1001), "more than 1000 parts"),
        (
            mail(
                "".join(f"--b{n}\nContent-Type: multipart/mixed; boundary=b{n + 1}\n\n" for n in range(60)),
                Content_Type="multipart/mixed; boundary=b0",
            ),
            "nested more than 50 deep",
        ),
    ],
)
def test_hostile_mail_is_refused_with_the_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        parse_email(raw)


@pytest.mark.parametrize(
    "raw",
    [
        mail(Subject="=?utf-8?q?a?= " * 4000),
        mail(From="<" * 30_000 + " " * 30_000),
        mail(From="(" * 60_000),
        mail(To="a@b.c, " * 9000),
        mail("word \n" * 300_000, Content_Type="text/plain; format=flowed"),
        mail(b"\xe4\xf6\n" * 500_000, Content_Type="text/plain; charset=utf-8"),
        mail("<div>" * 100_000, Content_Type="text/html"),
        mail("<style>" + ".a{b:c}/*" * 20_000 + "</style>x", Content_Type="text/html"),
        mail("<style>" + "@a" * 90_000 + "</style>x", Content_Type="text/html"),
    ],
    ids=[
        "encoded-words",
        "brackets",
        "comments",
        "recipients",
        "soft-breaks",
        "bytes",
        "tags",
        "css",
        "at-rules",
    ],
)
def test_large_and_odd_mail_takes_seconds_at_most(raw: bytes) -> None:
    started = time.process_time()
    parse_email(raw)
    assert time.process_time() - started < 10


# --- own mail, forms, language, bodies alone


def test_a_contact_forms_customer_is_in_its_reply_to() -> None:
    raw = mail(From="Shop <support@larkspur.example>", Reply_To="Ana <ana@example.org>")
    parsed = parse_email(raw, own_addresses=frozenset({"Support@Larkspur.example"}))
    assert parsed.kind == EmailKind.CUSTOMER
    assert parsed.sender == Address(name="Ana", address="ana@example.org")
    assert any("Reply-To" in warning for warning in parsed.warnings)


def test_a_customers_own_reply_to_changes_no_sender() -> None:
    raw = mail(From="Ana <ana@example.org>", Reply_To="bo@example.org")
    parsed = parse_email(raw, own_addresses=frozenset({"support@larkspur.example"}))
    assert parsed.sender.address == "ana@example.org"
    assert parsed.warnings == ()


def test_an_autoresponders_reply_to_is_not_its_sender() -> None:
    raw = mail(From="support@larkspur.example", Reply_To="ana@example.org", Auto_Submitted="auto-replied")
    parsed = parse_email(raw, own_addresses=frozenset({"support@larkspur.example"}))
    assert parsed.kind == EmailKind.AUTO_REPLY
    assert parsed.sender.address == "support@larkspur.example"


def test_the_language_is_that_of_the_new_part() -> None:
    body = "Wo bleibt meine Bestellung? Ich warte seit zwei Wochen.\n\nOn Mon, 16 Nov 2026 at 17:20, L <s@l.example> wrote:\n"
    history = "> We have received your order and will send it to you as soon as we can.\n" * 8
    assert parse_email(mail(body + history)).language == "de"
    assert parse_email(mail("4711\n")).language == ""


def test_a_body_alone_is_read_in_any_charset() -> None:
    assert parse_body("Größe".encode("cp1252")).text == "Größe"
    parsed = parse_body(b"<p>seen</p><p hidden>SECRET</p>", html=True)
    assert (parsed.text, parsed.reply, parsed.hidden_text) == ("seen", "seen", True)
    assert parse_body(b"").text == ""


# --- what real mail does


def test_the_first_of_several_senders_is_the_sender() -> None:
    parsed = parse_email(mail(From="Ana <ana@example.org>, Bo <bo@example.org>"))
    assert parsed.sender.address == "ana@example.org"


def test_without_from_the_sender_header_counts_and_without_both_it_is_said() -> None:
    assert parse_email(b"Sender: bo@example.org\nSubject: x\n\nHi").sender.address == "bo@example.org"
    parsed = parse_email(b"Subject: x\n\nHi")
    assert parsed.sender == Address()
    assert "no sender address" in parsed.warnings


def test_a_sender_without_a_readable_address_keeps_what_was_written() -> None:
    parsed = parse_email(mail(From="Ana at example dot org"))
    assert parsed.sender.name == "Ana at example dot org"


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("Mon, 16 Nov 2026 17:20:00 +0200", datetime(2026, 11, 16, 15, 20, tzinfo=UTC)),
        ("16 Nov 2026 17:20 -0000 (UTC)", datetime(2026, 11, 16, 17, 20, tzinfo=UTC)),
        ("Mon, 16 Nov 2026 17:20:60 GMT", datetime(2026, 11, 16, 17, 20, 59, tzinfo=UTC)),
        ("Mon, 16 Nov 2026 17:20:60 +0000", datetime(2026, 11, 16, 17, 20, 59, tzinfo=UTC)),
        ("Mon, 16 Nov 26 12:20:00 EST", datetime(2026, 11, 16, 17, 20, tzinfo=UTC)),
        ("Mon, 31 Feb 2026 12:20:00 +0000", None),
        ("Mon, 16 Nov 2026 17:20:00 +9999", None),
        ("Mon, 16 Foo 2026 17:20:00 +0200", None),
    ],
)
def test_dates_of_all_shapes(value: str, moment: datetime | None) -> None:
    assert parse_email(mail(Date=value)).sent_at == moment


def test_the_last_plain_text_of_an_alternative_is_the_text() -> None:
    raw = multipart(
        "alternative", part("text/plain", "first"), part("text/plain", "last"), part("text/html", "h")
    )
    assert parse_email(raw).text == "last"


def test_a_text_that_is_attached_is_no_body() -> None:
    raw = multipart(
        "mixed",
        part("text/plain", "body"),
        part("text/plain", "log", Content_Disposition="attachment; filename=log.txt"),
        part("text/html; name=page.html", "<p>page</p>"),
    )
    parsed = parse_email(raw)
    assert parsed.text == "body"
    assert [one.name for one in parsed.attachments] == ["log.txt", "page.html"]


def test_html_that_is_called_plain_text_is_html() -> None:
    assert (
        parse_email(mail("<!DOCTYPE html><html><body><p>Hi &amp; bye</p></body></html>")).text == "Hi & bye"
    )


def test_utf_7_is_read() -> None:
    assert parse_email(mail("Gr+APwA3w-e", Content_Type="text/plain; charset=utf-7")).text == "Grüße"


def test_a_charset_in_the_html_itself_is_found() -> None:
    page = '<html><head><meta charset="windows-1251"></head><body>Привет</body></html>'.encode("cp1251")
    assert parse_email(mail(page, Content_Type="text/html")).text == "Привет"


def test_a_flag_is_no_hidden_text() -> None:
    flag = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
    assert not parse_email(mail(f"Hi {flag}", Content_Type="text/plain; charset=utf-8")).hidden_text


def test_a_mailing_lists_footer_outside_the_signed_part_is_text_too() -> None:
    signed = b"Content-Type: multipart/signed; boundary=s\n\n--s\n\nwords\n--s\nContent-Type: application/pgp-signature\n\nx\n--s--\n"
    parsed = parse_email(multipart("mixed", signed, part("text/plain", "A list's footer")))
    assert parsed.text == "words\n\nA list's footer"


def test_an_id_that_a_server_has_varied_for_each_recipient_is_kept_as_it_is() -> None:
    value = "<JIRA.13420.1763301600000.1234.1763301600123@Atlassian.JIRA>"
    assert parse_email(mail(Message_ID=value)).message_id == value.strip("<>")
