"""Mails at and beyond the limits of parsing, each made to be slow or large in its own way."""

import base64

_FROM = b"From: Ana <ana@example.org>\nSubject: Hi\n"


def _text(body: bytes, kind: bytes = b"text/plain; charset=utf-8") -> bytes:
    return _FROM + b"Content-Type: " + kind + b"\n\n" + body


def _parts(number: int) -> bytes:
    one = b"--b\nContent-Type: text/plain\n\nx\n"
    return _text(one * number + b"--b--\n", b"multipart/mixed; boundary=b")


def _depth(levels: int) -> bytes:
    opened = b"".join(
        b"--b%d\nContent-Type: multipart/mixed; boundary=b%d\n\n" % (n, n + 1) for n in range(levels)
    )
    return _text(opened + b"--b%d\n\nwords\n" % levels, b"multipart/mixed; boundary=b0")


def hostile_mails() -> dict[str, bytes]:
    """A mail for each way to hurt a parser, by a short name."""
    words = b"=?utf-8?q?a?= "
    page = b"text/html; charset=utf-8"
    event = b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:x\n"
    return {
        "headers at the limit": b"X-A: "
        + b"y" * 70
        + b"\n"
        + (b"X-A: " + b"y" * 70 + b"\n") * 3_300
        + _text(b"Hi"),
        "headers beyond the limit": (b"X-A: y\n" * 50_000) + b"\nbody",
        "1,000 parts": _parts(999),
        "100,000 parts": _parts(100_000),
        "depth 50": _depth(49),
        "depth 5,000": _depth(5_000),
        "20,000 encoded words": b"From: a@b\nSubject: " + words * 20_000 + b"\n\nHi",
        "64 kB of encoded words": b"From: a@b\nSubject: " + words * 4_500 + b"\n\nHi",
        "encoded words of many charsets": b"From: a@b\nSubject: "
        + b"".join(b"=?x%d?b?4pyT?= " % n for n in range(3_000))
        + b"\n\nHi",
        "nested HTML": _text(b"<div>" * 400_000, page),
        "nested tables": _text(b"<table><tr><td>" * 130_000 + b"x", page),
        "nested hidden HTML": _text(b"<div style='color:#fff'>x" * 80_000, page),
        "angle brackets": _text(b"<" * 200_000, page),
        "comments never closed": _text(b"<!-- " * 400_000, page),
        "links": _text(b"<a href='https://e.org/?utm_source=x'>x</a>" * 45_000, page),
        "stylesheet": _text(b"<style>" + b".a{display:none}/*" * 11_000 + b"</style>x", page),
        "style attributes": _text(
            b"<p style='"
            + b"overflow:hidden;width:0" * 80
            + b"'>x" * 1
            + b"<p style='max-height:0;a'>x" * 60_000,
            page,
        ),
        "nested quotes": _text(b"<blockquote type=cite>x" * 80_000, page),
        "cells in a row": _text(b"<table><tr>" + b"<td>x" * 390_000, page),
        "hidden siblings": _text(b"<p>" + b"<b hidden>y</b>x" * 120_000, page),
        "small siblings": _text(b"<p style='font-size:0'>" + b"<b>y</b>x" * 200_000, page),
        "colours in the depth": _text(b"<div>" * 190 + b"<i style=color:#111>x</i>" * 75_000, page),
        "links in links": _text(b"<a href=x:y>" * 190 + b"<i>xxxxxxxx</i>" * 120_000, page),
        "line breaks": _text(b"<br>" * 500_000, page),
        "list items": _text(b"<ul>" * 100 + b"<li>x" * 390_000, page),
        "entities": _text(b"&amp;" * 400_000, page),
        "broken base64": _FROM + b"Content-Transfer-Encoding: base64\n\n" + b"=!QUJ\nD-" * 300_000,
        "broken quoted-printable": _FROM
        + b"Content-Transfer-Encoding: quoted-printable\n\n"
        + b"=\n=4=X" * 400_000,
        "RFC 2231 continuations": _text(
            b"x", b"application/pdf; " + b"; ".join(b"name*%d=%d" % (n, n) for n in range(550))
        ),
        "parameters beyond the limit": _text(b"x", b"text/plain" + b";" * 60_000),
        "semicolons": _text(b"x", b"text/plain" + b";" * 7_900),
        "boundaries": _text(b"--b\n--b--\n" * 200_000, b"multipart/mixed; boundary=b"),
        "nearly boundaries": _text(b"--b-" * 1_000_000, b"multipart/mixed; boundary=b"),
        "recipients": b"From: a@b\nTo: " + b"a@b.c, " * 9_000 + b"\n\nHi",
        "comments in an address": b"From: " + b"(" * 60_000 + b"\n\nHi",
        "quotes in an address": b"From: " + b'"\\' * 30_000 + b"\n\nHi",
        "brackets in an address": b"From: " + b"<" * 30_000 + b" " * 30_000 + b"\n\nHi",
        "references": b"From: a@b\nReferences: " + b"".join(b"<%d@x>" % n for n in range(7_000)) + b"\n\nHi",
        "soft line breaks": _text(b"word \n" * 300_000, b"text/plain; format=flowed"),
        "quote marks": _text((b">" * 1_000 + b" x\n") * 800),
        "one long line": _text(b"x" * 10_000_000),
        "blank lines": _text(b"\n" * 2_000_000),
        "Latin bytes in UTF-8": _text(b"\xe4\xf6\n" * 500_000),
        "NUL bytes": _text(b"\x00" * 1_000_000 + b"x"),
        "UTF-7": _text(b"+AGEA" * 100_000, b"text/plain; charset=utf-7"),
        "HZ": _text(b"~{" * 200_000, b"text/plain; charset=hz-gb-2312"),
        "ISO-2022-JP": _text(b"\x1b$B-!\x1b(B\xff" * 80_000, b"text/plain; charset=iso-2022-jp"),
        "uuencoded beginnings": _text(b"begin 644 x\n" * 70_000),
        "uuencoded lines": _text(
            b"begin 644 x\n" + b"M" + b"!" * 60 + b"\n" * 1 + (b"M" + b"!" * 60 + b"\n") * 12_000
        ),
        "PGP beginnings": _text(b"-----BEGIN PGP MESSAGE-----\n" * 28_000),
        "PGP signatures": _text(
            b"-----BEGIN PGP SIGNED MESSAGE-----\n\n-----BEGIN PGP SIGNATURE-----\n" * 12_000
        ),
        "calendar components": _text(b"BEGIN:VCALENDAR\n" + b"BEGIN:VEVENT\n" * 15_000, b"text/calendar"),
        "calendar properties": _text(event + b"X-A;B=C:d\n" * 19_000, b"text/calendar"),
        "calendar time zone": _text(
            b"BEGIN:VCALENDAR\nBEGIN:VTIMEZONE\nTZID:a\nBEGIN:STANDARD\nDTSTART:00010101T000000\nTZOFFSETFROM:+0100\n"
            b"TZOFFSETTO:+0200\nRRULE:FREQ=SECONDLY\nEND:STANDARD\nEND:VTIMEZONE\nBEGIN:VEVENT\n"
            b"DTSTART;TZID=a:20260101T000000\nRRULE:FREQ=SECONDLY\nEND:VEVENT\nEND:VCALENDAR\n",
            b"text/calendar",
        ),
        "delivery report": _text(b"Action: failed\n\n" * 60_000, b"message/delivery-status"),
        "winmail.dat counts": _tnef(
            b"\x01\x03\x90\x06\x00" + (4).to_bytes(4, "little") + b"\xff" * 4 + b"\0\0"
        ),
        "winmail.dat objects": _tnef(b"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" * 100_000),
        "winmail.dat values": _tnef(
            b"\x01\x03\x90\x06\x00"
            + (12).to_bytes(4, "little")
            + b"\x01\0\0\0\x03\x10\x01\x00"
            + b"\xff" * 4
            + b"\0\0"
        ),
        "signed data in itself": _FROM + b"Content-Type: application/pkcs7-mime; smime-type=signed-data\n"
        b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(b"\x30\x80" * 200_000),
        "attached mail in itself": b"From: a@b\n"
        + b"Content-Type: message/rfc822\n\n" * 50_000
        + b"Subject: x\n\nhi",
        "Unicode tags": _text("\U000e0041".encode() * 200_000),
        "combining marks": _text("e\u0301\u0327".encode() * 200_000),
        "dates": b"From: a@b\nDate: " + b"9" * 60_000 + b"\n\nHi",
    }


def _tnef(objects: bytes) -> bytes:
    stream = b"\x78\x9f\x3e\x22\x00\x00" + objects
    return (
        _FROM
        + b"Content-Type: application/ms-tnef\nContent-Transfer-Encoding: base64\n\n"
        + base64.encodebytes(stream)
    )
