"""Mails for the tests of parsing, built byte by byte."""


def mail(body: str | bytes = "Hello.\n", **headers: str) -> bytes:
    """A small mail; header names have _ for -."""
    lines = {"From": "Ana <ana@example.org>", "Subject": "Hi", **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\n" for name, value in lines.items())
    return head.encode() + b"\n" + (body.encode() if isinstance(body, str) else body)


def part(kind: str, body: str | bytes, **headers: str) -> bytes:
    """A part of a multipart."""
    head = "".join(f"{name.replace('_', '-')}: {value}\n" for name, value in headers.items())
    content = body.encode() if isinstance(body, str) else body
    return f"Content-Type: {kind}\n{head}\n".encode() + content + b"\n"


def multipart(kind: str, *parts: bytes, boundary: str = "b0", **headers: str) -> bytes:
    """A mail of these parts."""
    inner = b"".join(b"--%s\n%s" % (boundary.encode(), one) for one in parts)
    headers = {"Content_Type": f"multipart/{kind}; boundary={boundary}"} | headers
    return mail(inner + b"--%s--\n" % boundary.encode(), **headers)
