"""Mails with much in them, as programs write them: each with its name, and whether anything in it can stay."""

from email.message import EmailMessage, MIMEPart
from random import Random

MB = 1_000_000


def noise(num_bytes: int, seed: int = 1) -> bytes:
    """Bytes that do not compress, the same each time."""
    return Random(seed).randbytes(num_bytes)


def mail(subject: str, text: str = "Please look at the attached files.\n\n-- \nVera\n") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Vera Lind <vera@example.org>"
    message["To"] = "support@larkspur.example"
    message["Subject"] = subject
    message["Message-ID"] = f"<{subject.replace(' ', '-').encode().hex()}@example.org>"
    message["Date"] = "Mon, 23 Nov 2026 10:00:00 +0000"
    message.set_content(text)
    return message


def wire(message: EmailMessage) -> bytes:
    """As it goes over the line, the same bytes each time."""
    for number, part in enumerate(
        part for part in message.walk() if part.get_content_maintype() == "multipart"
    ):
        part.set_boundary(f"=_part{number}=")
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def attached(size: int = MB) -> bytes:
    message = mail("Three files")
    message.add_attachment(noise(size), maintype="application", subtype="pdf", filename="contract.pdf")
    message.add_attachment(noise(size, 2), maintype="image", subtype="jpeg", filename="wheel.jpg")
    message.add_attachment(
        noise(size // 2, 3), maintype="application", subtype="zip", filename="Prüfung – März.zip"
    )
    return wire(message)


def with_html(size: int = MB) -> bytes:
    """mixed( alternative( plain, related( html, inline image ) ), pdf ), as Apple Mail and Outlook nest it."""
    message = mail("Pictures inside", "Hello, the bell is broken, see the picture.\n")
    message.add_alternative(
        '<p>Hello, the <b>bell</b> is broken, see the picture.</p><img src="cid:one@x"><p>\xdc\n</p>',
        subtype="html",
    )
    html = message.get_payload()[1]  # type: ignore[index]
    html.add_related(noise(size), maintype="image", subtype="png", cid="<one@x>")  # type: ignore[union-attr]
    message.add_attachment(noise(size, 2), maintype="application", subtype="pdf", filename="bill.pdf")
    return wire(message)


def nested(size: int = MB) -> bytes:
    """An attached mail that has attachments of its own, one that is a multipart, and one of a single part."""
    inner = mail("The first complaint", "This is what I wrote in May.\n")
    inner.add_attachment(noise(size), maintype="application", subtype="pdf", filename="inner.pdf")
    message = mail("Fwd three mails")
    message.add_attachment(inner)
    message.add_attachment(mail("A short one", "One part only.\n"))
    message.add_attachment(noise(size, 2), maintype="image", subtype="png", filename="last.png")
    return wire(message)


def long_text(size: int = MB) -> bytes:
    lines = "".join(f"{n}: the export of the planner, line {n} of very many\n" for n in range(size // 40))
    return wire(mail("A very long text", lines))


def long_utf8(size: int = 4 * MB) -> bytes:
    """Base64 of multi-byte letters: a cut at the wrong place turns all of them into something else."""
    message = mail("Очень длинное письмо")
    message.set_content("Здравствуйте, это строка журнала.\n" * (size // 60), charset="utf-8", cte="base64")
    return wire(message)


def only_pdf(size: int = MB) -> bytes:
    """The whole mail is the file, as scanners send it."""
    message = mail("Scan 0001")
    message.set_content(noise(size), maintype="application", subtype="pdf", filename="scan.pdf")
    return wire(message)


def only_mail(size: int = 5 * MB) -> bytes:
    message = mail("Outer")
    message.set_content(mail("What was in it", "text of the inner mail\n" * (size // 20)))
    return wire(message)


def forwarded(size: int = 4 * MB) -> bytes:
    """No words of its own: what is wanted stands in the attached mail, before that one's files."""
    inner = mail("The bell", "Hello, the bell of my bicycle is broken.\n")
    inner.add_attachment(noise(size), maintype="image", subtype="jpeg", filename="bell.jpg")
    message = mail("Fwd: The bell", "\n")
    message.add_attachment(inner)
    message.add_attachment(noise(MB, 2), maintype="image", subtype="png", filename="last.png")
    return wire(message)


def nameless(size: int = MB) -> bytes:
    message = mail("No names")
    message.make_mixed()
    for number, kind in enumerate(("image/png", "application/octet-stream", "audio/mpeg")):
        part = MIMEPart()
        part.set_content(noise(size, number), *kind.split("/"))
        message.attach(part)
    return wire(message)


def continued_names(size: int = MB) -> bytes:
    """RFC 2231 in pieces, RFC 2047 where it does not belong, and a path."""
    body = b"\r\n".join(noise(57 * 3, 4)[:57].hex().encode() for _ in range(size // 116))
    return (
        b"From: vera@example.org\r\nSubject: Names\r\nMessage-ID: <names@example.org>\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/mixed;\r\n boundary=\"=_a b'c\"\r\n\r\npreamble\r\n--=_a b'c\r\n\r\nText without headers.\r\n"
        b"--=_a b'c\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment;\r\n"
        b" filename*0*=utf-8''%C3%9Cber;\r\n filename*1*=sicht%20;\r\n filename*2=\"2026.pdf\"\r\n\r\n"
        + body
        + b"\r\n"
        b'--=_a b\'c\r\nContent-Type: image/png; name="=?utf-8?B?w4RuZGVydW5nLnBuZw==?="\r\n\r\n'
        + body
        + b"\r\n"
        b'--=_a b\'c\r\nContent-Type: text/csv; name="..\\\\folder\\\\rows.csv"\r\n\r\n'
        + body
        + b"\r\n--=_a b'c--\r\nepilogue\r\n"
    )


def odd(size: int = MB) -> bytes:
    """A multipart of one, in a multipart of one; a digest; a calendar; a text that is attached; unknown types."""
    body = noise(size // 2).hex().encode()
    folded = b"\r\n".join(body[at : at + 70] for at in range(0, len(body), 70))
    return (
        b"From: vera@example.org\r\nSubject: Odd\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n"
        b"--a\r\nContent-Type: multipart/x-strange; boundary=ab\r\n\r\n--ab\r\nContent-Type: multipart/alternative; boundary=abc\r\n\r\n"
        b"--abc\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n--abc--\r\n\r\n--ab--\r\n"
        b"--a\r\nContent-Type: multipart/digest; boundary=d\r\n\r\n--d\r\n\r\nSubject: in a digest\r\n\r\n"
        + folded
        + b"\r\n--d--\r\n"
        b"--a\r\nContent-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:Visit\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
        b"--a\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=log.txt\r\n\r\n"
        + folded
        + b"\r\n"
        b"--a\r\nContent-Type: x-what/ever\r\nContent-ID: <z@y>\r\n\r\n" + folded + b"\r\n--a--\r\n"
    )


def bounce(size: int = MB) -> bytes:
    folded = b"\r\n".join(noise(1, n).hex().encode() * 30 for n in range(size // 62))
    return (
        b"From: MAILER-DAEMON@example.org\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=r\r\n\r\n"
        b"--r\r\nContent-Type: text/plain\r\n\r\nYour mail could not be delivered.\r\n"
        b"--r\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.org\r\n\r\nFinal-Recipient: rfc822; a@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
        b"--r\r\nContent-Type: message/rfc822\r\n\r\nSubject: What you sent\r\nMessage-ID: <sent@larkspur.example>\r\n\r\n"
        + folded
        + b"\r\n--r--\r\n"
    )


MAILS = {
    make.__name__: make()
    for make in (
        attached,
        with_html,
        nested,
        long_utf8,
        only_pdf,
        only_mail,
        forwarded,
        nameless,
        continued_names,
        odd,
        bounce,
    )
}
