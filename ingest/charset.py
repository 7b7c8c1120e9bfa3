"""Bytes to text, whatever the mail says its charset is.

A mail's charset name never reaches codecs.lookup(): names are looked up in the table below. No answer
holds U+FFFD: bytes that fit nothing are read as Windows-1252, which is what they nearly always are.
"""

import codecs
import re

# Windows' supersets stand for the sets that senders name but do not keep to.
_LATIN = "cp1252"
_CODECS = {
    "us-ascii": "utf-8 ascii us ansi_x3.4-1968 iso646-us utf8 unicode-1-1-utf-8 utf-8-sig",
    "utf-7": "utf7 unicode-1-1-utf-7",
    "utf-16": "utf16 unicode ucs-2",
    "utf-16-le": "utf-16le",
    "utf-16-be": "utf-16be",
    "utf-32": "utf32",
    "cp1252": "windows-1252 iso-8859-1 latin1 latin-1 iso8859-1 iso_8859-1 l1 ansi x-ansi 8bit x-user-defined",
    "cp1250": "windows-1250",
    "cp1251": "windows-1251 win-1251",
    "cp1253": "windows-1253",
    "cp1254": "windows-1254 iso-8859-9 latin5",
    "cp1255": "windows-1255 iso-8859-8 iso-8859-8-i iso-8859-8-e",
    "cp1256": "windows-1256",
    "cp1257": "windows-1257",
    "cp1258": "windows-1258",
    "iso8859-2": "iso-8859-2 latin2",
    "iso8859-3": "iso-8859-3",
    "iso8859-4": "iso-8859-4",
    "iso8859-5": "iso-8859-5",
    "iso8859-6": "iso-8859-6",
    "iso8859-7": "iso-8859-7",
    "iso8859-10": "iso-8859-10",
    "iso8859-13": "iso-8859-13",
    "iso8859-14": "iso-8859-14",
    "iso8859-15": "iso-8859-15 latin9",
    "iso8859-16": "iso-8859-16",
    "koi8-r": "koi8r",
    "koi8-u": "koi8u koi8-ru",
    "cp437": "ibm437",
    "cp850": "ibm850",
    "cp866": "ibm866",
    "mac-roman": "macintosh x-mac-roman mac",
    "cp874": "windows-874 tis-620 iso-8859-11",
    "gb18030": "gb2312 gbk cp936 x-gbk gb_2312-80 euc-cn x-euc-cn",
    "hz": "hz-gb-2312",
    "big5hkscs": "big5 big5-hkscs x-x-big5 cn-big5",
    "cp950": "windows-950",
    "cp949": "ks_c_5601-1987 ks_c_5601-1989 euc-kr ksc5601 ks_c_5601 x-windows-949 uhc",
    "johab": "",
    "iso2022_kr": "iso-2022-kr",
    "cp932": "shift_jis shift-jis sjis x-sjis windows-31j ms_kanji ms932",
    "euc_jp": "euc-jp x-euc-jp",
    "iso2022_jp": "iso-2022-jp iso-2022-jp-1 iso-2022-jp-2 iso-2022-jp-3 iso-2022-jp-ms cp50220 cp50221 csiso2022jp _iso-2022-jp",
}
_BY_NAME = {name: codec for codec, names in _CODECS.items() for name in (codec, *names.split())}
# All of these are read as UTF-8, which ASCII is a part of.
_UTF8 = "us-ascii"
# One byte, one letter: text in these is practically never valid UTF-8 by chance. For the two-byte sets it can be.
_SINGLE_BYTE = re.compile(r"^(cp125\d|iso8859|koi8|cp8|cp437|mac)")
# Tried in this order, since each knows letters that the one before does not.
_JAPANESE = ("iso2022_jp", "iso2022_jp_2", "iso2022_jp_ext", "iso2022_jp_2004")
_JIS_RUN = re.compile(rb"\x1b\$[@B](.*?)(?=\x1b|$)", re.DOTALL)


_WINDOWS = {
    byte: bytes((byte,)).decode(_LATIN)
    for byte in range(0x80, 0xA0)
    if byte not in {0x81, 0x8D, 0x8F, 0x90, 0x9D}
}


def _as_latin(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _latin(error.object[error.start : error.end]), error.end


codecs.register_error("briefbox.latin", _as_latin)


def decode(data: bytes, charset: str | None) -> tuple[str, bool]:
    """The text, and whether the charset had to be guessed."""
    if data.startswith(codecs.BOM_UTF8):
        return data[3:].decode("utf-8", "briefbox.latin"), False
    name = (charset or "").strip(" \t\"'<>").lower()
    codec = _BY_NAME.get(re.split(r"[$*;\s]", name)[0]) if name else _UTF8
    if data.isascii() and codec not in {"utf-7", "hz", "iso2022_kr", "iso2022_jp", "utf-16", "utf-32"}:
        return data.decode("ascii"), False
    if codec is not None and codec != _UTF8 and not (_SINGLE_BYTE.match(codec) and _is_utf8(data)):
        text = _strict(data, codec)
        if text is not None:
            return text, False
    try:
        return data.decode("utf-8"), codec != _UTF8
    except UnicodeDecodeError:
        pass
    if codec in {None, _UTF8} and data.decode("utf-8", "ignore").isascii():
        return _latin(data), True  # no letter of it is UTF-8
    if codec in {None, _UTF8}:
        # Stray bytes in UTF-8, or Latin text without a label: the handler reads both.
        return data.decode("utf-8", "briefbox.latin"), True
    assert codec is not None
    if _SINGLE_BYTE.match(codec):
        return _latin(data) if codec == _LATIN else data.decode(codec, "briefbox.latin"), True
    return data.decode(codec, "replace").replace("\ufffd", "?"), True


def _strict(data: bytes, codec: str) -> str | None:
    for each in _JAPANESE if codec == "iso2022_jp" else (codec,):
        try:
            return data.decode(each)
        except (UnicodeError, ValueError):
            continue
    if codec == "iso2022_jp":
        return _windows_japanese(data)
    return None


def _windows_japanese(data: bytes) -> str | None:
    """ISO-2022-JP with Windows' own letters (① ㈱), which Python's codec refuses: read as Shift-JIS."""
    parts, end = [], 0
    try:
        for run in _JIS_RUN.finditer(data):
            parts.append(re.sub(rb"\x1b\(.", b"", data[end : run.start()]).decode("ascii"))
            parts.append(_jis_to_sjis(run[1]).decode("cp932"))
            end = run.end()
        parts.append(re.sub(rb"\x1b\(.", b"", data[end:]).decode("ascii"))
    except UnicodeError:
        return None
    return "".join(parts)


def _jis_to_sjis(pairs: bytes) -> bytes:
    out = bytearray()
    for at in range(0, len(pairs) - 1, 2):
        row, cell = pairs[at], pairs[at + 1]
        lead = (row + 1) // 2 + (0x70 if row < 0x5F else 0xB0)
        cell += (0x1F if cell < 0x60 else 0x20) if row % 2 else 0x7E
        out += bytes((lead & 0xFF, cell & 0xFF))
    return bytes(out)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _latin(data: bytes) -> str:
    """Windows-1252; its five unused bytes as Latin-1 has them."""
    return data.decode("latin-1").translate(_WINDOWS)
