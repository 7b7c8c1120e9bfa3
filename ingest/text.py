"""What is done to a text before it is kept: soft breaks joined, armour off, invisible letters out, bounded."""

import re
from collections.abc import Callable

from ingest.headers import INVISIBLE

# What is kept: longer text is cut with a warning. The bytes stay whole in the store.
MAX_TEXT = 200_000

_CONTROL = bytes(code for code in range(128) if (code < 32 or code == 127) and code not in b"\t\n\r")
# Joiners mean something inside words (Persian, Hindi) and emoji; elsewhere they are filler.
_LOOSE_JOINERS = re.compile(r"(?<![^\s])[\u200c\u200d]+|[\u200c\u200d]+(?![^\s\u200c\u200d])")
_BLANK_LINES = re.compile(r"\n{3,}")
_TAGS = re.compile("[\U000e0020-\U000e007f]")
_SIGNED = "-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = "-----BEGIN PGP SIGNATURE-----"
_ENCRYPTED = re.compile(
    r"^-----BEGIN PGP MESSAGE-----$[^-]*(?:-(?!----END PGP)[^-]*)*(?:-----END PGP MESSAGE-----)?", re.M
)


def without_invisible(text: str) -> str:
    """The text without control and invisible characters."""
    if text.isascii():
        return text.encode("ascii").translate(None, _CONTROL).decode("ascii")
    return _LOOSE_JOINERS.sub("", INVISIBLE.sub("", text)).replace("\u00a0", " ")


def clean_text(text: str, warn: Callable[[str], None]) -> str:
    """Text as it is stored: no control or invisible characters, no blanks at line ends, bounded."""
    text = tidy(without_invisible(text))
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT]
        warn("text cut")
    return text.strip() and text


def tidy(text: str) -> str:
    """Text without blanks at line ends, and with one empty line where there are several, and none around it."""
    text = "\n".join([line.rstrip() for line in text.split("\n")])
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip("\n")


def has_tags(text: str) -> bool:
    """Whether letters are hidden in it as Unicode tags; flags of regions are made of tags too."""
    return not text.isascii() and bool(_TAGS.search(text)) and "\U0001f3f4" not in text


def unflow(text: str, *, del_sp: bool) -> str:
    """Join the soft line breaks of format=flowed (RFC 3676)."""
    joined: list[str] = []
    pieces: list[str] = []
    open_depth = -1
    for line in text.split("\n"):
        bare = line.lstrip(">")
        depth = len(line) - len(bare)
        bare = bare.removeprefix(" ")
        soft = bare.endswith(" ") and bare != "-- "
        if soft and del_sp:
            bare = bare[:-1]
        if depth == open_depth and bare != "-- ":
            pieces.append(bare)
        else:
            joined.append("".join(pieces))
            pieces = [f"{'>' * depth} {bare}" if depth else bare]
        open_depth = depth if soft else -1
    joined.append("".join(pieces))
    return "\n".join(joined[1:])


def without_armour(text: str) -> tuple[str, set[str]]:
    """Text without PGP's armour (RFC 9580), and what to say of it: "encrypted", "signature not checked"."""
    if "-----BEGIN PGP " not in text:
        return text, set()
    said: set[str] = set()
    text, encrypted = _ENCRYPTED.subn("", text)
    if encrypted:
        said.add("encrypted")
    start = text.find(_SIGNED)
    if start >= 0 and (start == 0 or text[start - 1] == "\n"):
        stop = text.find(_SIGNATURE, start)
        # A cut mail has no end of its signature.
        end = text.find("-----END PGP SIGNATURE-----", stop) + len("-----END PGP SIGNATURE-----")
        # "Hash:" lines stand between the armour's first line and a blank one.
        head = text.find("\n\n", start)
        if 0 <= head < stop:
            signed = re.sub(r"^- ", "", text[head + 2 : stop], flags=re.M)
            text = text[:start] + signed + (text[end:] if end > stop else "")
            said.add("signature not checked")
    return text, said
