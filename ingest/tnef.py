"""winmail.dat opened: the text and files that Outlook wraps in TNEF (MS-OXTNEF).

Every count and length is checked against the bytes that are there, so that the time is bounded by their number.
"""

import re
from dataclasses import dataclass, field

from briefbox.schemas import Attachment
from ingest.charset import decode

_SIGNATURE = 0x223E9F78
_MAX_OBJECTS = 5_000
_MAX_PROPERTIES = 5_000
_MAX_RTF = 400_000

_BODY, _MAPI, _CODEPAGE = 0x800C, 0x9003, 0x9007
_RENDER, _TITLE, _DATA, _ATTACHMENT = 0x9002, 0x8010, 0x800F, 0x9005
_P_BODY, _P_HTML, _P_RTF, _P_CODEPAGE = 0x1000, 0x1013, 0x1009, 0x3FDE
_P_FILE_NAME, _P_LONG_NAME, _P_NAME, _P_DATA, _P_TYPE = 0x3704, 0x3707, 0x3001, 0x3701, 0x370E
# Bytes of the MAPI types of fixed length; each takes a multiple of four in the stream.
_FIXED = {0x02: 4, 0x03: 4, 0x04: 4, 0x05: 8, 0x06: 8, 0x07: 8, 0x0A: 4, 0x0B: 4, 0x14: 8, 0x40: 8, 0x48: 16}
_VARIABLE = {0x0D, 0x1E, 0x1F, 0x102}
_UNICODE = 0x1F


@dataclass(slots=True)
class Opened:
    """What was in it: plain text, or HTML, and the files; `broken` says that reading stopped early."""

    text: str = ""
    html: str = ""
    attachments: list[Attachment] = field(default_factory=list)
    broken: bool = False


@dataclass(slots=True)
class _File:
    name: str = ""
    type: str = ""
    size: int = 0


@dataclass(slots=True)
class _State:
    """What has been read so far. `rtf` is compressed."""

    opened: Opened = field(default_factory=Opened)
    files: list[_File] = field(default_factory=list)
    codepage: str = "cp1252"
    rtf: bytes = b""


@dataclass(slots=True)
class _Reader:
    data: bytes
    at: int = 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError("longer than what is there")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def padded(self, size: int) -> bytes:
        content = self.take(size)
        self.at += -size % 4
        return content


def open_tnef(data: bytes) -> Opened | None:
    """Text and files of a TNEF stream; None when it is none. Whatever is broken in it, what came before it counts."""
    if data[:4] != _SIGNATURE.to_bytes(4, "little"):
        return None
    state = _State()
    try:
        _objects(_Reader(data, at=6), state)
    except ValueError:
        state.opened.broken = True
    opened = state.opened
    if not opened.text.strip() and not opened.html.strip() and state.rtf:
        opened.text = rtf_text(unpacked_rtf(state.rtf))
    opened.attachments = [
        Attachment(name=one.name, type=one.type or "application/octet-stream", size=one.size)
        for one in state.files
    ]
    return opened


def _objects(reader: _Reader, state: _State) -> None:
    """A level, a name, a type, a length, that many bytes, and a checksum; again and again."""
    for _ in range(_MAX_OBJECTS):
        if reader.at + 11 > len(reader.data):
            return
        reader.take(1)
        name = reader.number(2)
        reader.take(2)
        content = reader.take(reader.number(4))
        reader.at += 2
        if name == _CODEPAGE:
            state.codepage = f"cp{int.from_bytes(content[:4], 'little')}"
        elif name == _BODY:
            state.opened.text = _text(content, state.codepage)
        elif name == _MAPI:
            _message_properties(content, state)
        elif name == _RENDER:
            state.files.append(_File())
        elif state.files:
            _file_object(name, content, state)
    state.opened.broken = True


def _file_object(name: int, content: bytes, state: _State) -> None:
    file = state.files[-1]
    if name == _TITLE:
        file.name = file.name or _text(content, state.codepage)
    elif name == _DATA:
        file.size = len(content)
    elif name == _ATTACHMENT:
        known = dict(_properties(content))
        for key in (_P_LONG_NAME, _P_FILE_NAME, _P_NAME):
            if key in known:
                file.name = _property_text(known[key], state.codepage)
                break
        if _P_TYPE in known:
            file.type = _property_text(known[_P_TYPE], state.codepage)
        if _P_DATA in known:
            file.size = file.size or len(known[_P_DATA][1])


def _message_properties(content: bytes, state: _State) -> None:
    known = dict(_properties(content))
    codepage = state.codepage
    if _P_CODEPAGE in known:
        codepage = f"cp{int.from_bytes(known[_P_CODEPAGE][1], 'little')}"
    if _P_BODY in known:
        state.opened.text = _property_text(known[_P_BODY], codepage)
    if _P_HTML in known:
        state.opened.html = _property_text(known[_P_HTML], codepage)
    state.rtf = known[_P_RTF][1] if _P_RTF in known else b""


def _properties(content: bytes) -> list[tuple[int, tuple[int, bytes]]]:
    """(name, (type, bytes)) of each MAPI property up to the first that is broken; several values are joined."""
    reader = _Reader(content)
    found: list[tuple[int, tuple[int, bytes]]] = []
    try:
        for _ in range(min(reader.number(4), _MAX_PROPERTIES)):
            kind, name = reader.number(2), reader.number(2)
            if name >= 0x8000:
                reader.take(16)
                # A number, or a name of so many bytes.
                reader.padded(4 if reader.number(4) == 0 else reader.number(4))
            found.append((name, (kind & 0xFFF, _value(reader, kind))))
    except ValueError:
        pass
    return found


def _value(reader: _Reader, kind: int) -> bytes:
    several, kind = bool(kind & 0x1000), kind & 0xFFF
    if kind in _VARIABLE:
        return b"".join(reader.padded(reader.number(4)) for _ in range(_count(reader, 4)))
    if kind not in _FIXED:
        raise ValueError("a type that MAPI does not have")
    count = _count(reader, _FIXED[kind]) if several else 1
    return reader.padded(count * _FIXED[kind])


def _count(reader: _Reader, size: int) -> int:
    count = reader.number(4)
    if count * size > len(reader.data) - reader.at:
        raise ValueError("more than what is there")
    return count


def _property_text(value: tuple[int, bytes], codepage: str) -> str:
    kind, data = value
    return data.decode("utf-16-le", "ignore").rstrip("\0") if kind == _UNICODE else _text(data, codepage)


def _text(data: bytes, codepage: str) -> str:
    name = {"cp65001": "utf-8", "cp20127": "us-ascii", "cp28591": "iso-8859-1", "cp20866": "koi8-r"}
    return decode(data.rstrip(b"\0"), name.get(codepage, codepage))[0].replace("\r\n", "\n")


# --- RTF

_LZFU, _PLAIN = b"LZFu", b"MELA"
# What every compressed text may refer to from its first byte on (MS-OXRTFCP, 2.1.2.1).
_DICTIONARY = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor MS Sans Serif"
    rb"SymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    + b"\r\n"
    + rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)
_RTF = re.compile(
    r"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|[\r\n]+|[^\\{}\r\n]+|\\"
)
_NO_TEXT = {
    "fonttbl",
    "colortbl",
    "stylesheet",
    "info",
    "pict",
    "object",
    "header",
    "footer",
    "themedata",
    "listtable",
}
_AS_TEXT = {
    "par": "\n",
    "line": "\n",
    "tab": "\t",
    "row": "\n",
    "cell": "\t",
    "emdash": "—",
    "endash": "–",
    "lquote": "‘",
    "rquote": "’",
    "ldblquote": "“",
    "rdblquote": "”",
    "bullet": "•",
}


def unpacked_rtf(data: bytes) -> bytes:
    """Compressed RTF (MS-OXRTFCP) as RTF; what is broken ends it."""
    kind = data[8:12]
    if kind == _PLAIN:
        return data[16 : 16 + _MAX_RTF]
    if kind != _LZFU:
        return b""
    window = bytearray(_DICTIONARY.ljust(4096, b"\0"))
    write, at, out = len(_DICTIONARY), 16, bytearray()
    while at < len(data) and len(out) < _MAX_RTF:
        control = data[at]
        at += 1
        for bit in range(8):
            if at >= len(data):
                return bytes(out)
            if not control >> bit & 1:
                copied = data[at : at + 1]
                at += 1
            else:
                token = int.from_bytes(data[at : at + 2], "big")
                at += 2
                if token >> 4 == write:
                    return bytes(out)
                copied = b""
            length = 1 if copied else (token & 15) + 2
            for step in range(length):
                byte = copied[0] if copied else window[((token >> 4) + step) % 4096]
                window[write] = byte
                write = (write + 1) % 4096
                out.append(byte)
    return bytes(out)


def rtf_text(data: bytes) -> str:
    """The words of an RTF document, with its line breaks."""
    out: list[str] = []
    skipping, stack, after_unicode = False, [], 0
    for token in _RTF.finditer(data.decode("latin-1")):
        word, number, code, symbol, brace = token.groups()
        if brace == "{":
            stack.append(skipping)
        elif brace == "}":
            skipping = stack.pop() if stack else False
        elif symbol == "*" or (word and word in _NO_TEXT):
            skipping = True
        elif skipping:
            continue
        elif word == "u" and number:
            out.append(chr(int(number) % 0x10000))
            after_unicode = 1
        elif word:
            out.append(_AS_TEXT.get(word, ""))
        elif code or symbol:
            if after_unicode:
                after_unicode = 0
            else:
                out.append(bytes.fromhex(code).decode("cp1252", "ignore") if code else _symbol(symbol))
        elif not token[0].isspace() or " " in token[0] or "\t" in token[0]:
            # The letter behind \uN is for readers without Unicode.
            out.append(token[0][after_unicode:])
            after_unicode = 0
    return "".join(out).encode("utf-16", "surrogatepass").decode("utf-16", "ignore").strip()


def _symbol(symbol: str) -> str:
    return {"~": "\u00a0", "_": "-", "-": "", "\n": "\n", "\r": "\n"}.get(symbol, symbol)
