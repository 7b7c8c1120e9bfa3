"""What is inside an opaque-signed S/MIME mail (RFC 8551): readable text in a BER wrapping.

The signature is not checked and nothing is decrypted: only the wrapping comes off, with every length checked
against the bytes that are there.
"""

from collections.abc import Iterator

_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_DATA = bytes.fromhex("2a864886f70d010701")
_OID, _OCTETS, _SEQUENCE, _CONTEXT_0, _OCTETS_IN_PIECES = 0x06, 0x04, 0x30, 0xA0, 0x24
_MAX_DEPTH = 10


def signed_content(data: bytes) -> bytes | None:
    """The mail inside signed data; None when it is something else (encrypted, compressed) or broken."""
    try:
        wrapping = _items(data, *_first(data, 0, len(data), _SEQUENCE))
        if _bytes_of(data, next(wrapping), _OID) != _SIGNED_DATA:
            return None
        inside = _items(data, *_range(next(wrapping), _CONTEXT_0))
        signed = _items(data, *_range(next(inside), _SEQUENCE))
        next(signed)  # version
        next(signed)  # digest algorithms
        content = _items(data, *_range(next(signed), _SEQUENCE))
        if _bytes_of(data, next(content), _OID) != _DATA:
            return None
        return _octets(data, next(_items(data, *_range(next(content), _CONTEXT_0))), 0)
    except (ValueError, IndexError, StopIteration):
        return None


# Tag, where the content begins, where it ends, where the next item begins.
Item = tuple[int, int, int, int]


def _items(data: bytes, start: int, end: int) -> Iterator[Item]:
    at = start
    while at < end:
        item = _item(data, at, end, 0)
        if item[0] == 0 and item[1] == item[2]:
            return
        yield item
        at = item[3]


def _item(data: bytes, at: int, end: int, depth: int) -> Item:
    """Tag, begin and end of the content, and where the next item begins."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    tag, length, start = data[at], data[at + 1], at + 2
    if length == 0x80:
        # Without a length: it goes on until an item of two zero bytes.
        at = start
        while data[at] or data[at + 1]:
            at = _item(data, at, end, depth + 1)[3]
        return tag, start, at, at + 2
    if length & 0x80:
        size = length & 0x7F
        if size > 4:
            raise ValueError("a length of more than 4 bytes")
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    if start + length > end:
        raise ValueError("longer than what is there")
    return tag, start, start + length, start + length


def _first(data: bytes, start: int, end: int, tag: int) -> tuple[int, int]:
    return _range(_item(data, start, end, 0), tag)


def _range(item: Item, tag: int) -> tuple[int, int]:
    if item[0] != tag:
        raise ValueError("another sort of item")
    return item[1], item[2]


def _bytes_of(data: bytes, item: Item, tag: int) -> bytes:
    start, end = _range(item, tag)
    return data[start:end]


def _octets(data: bytes, item: Item, depth: int) -> bytes:
    """The bytes of an octet string, in one piece or several."""
    if item[0] == _OCTETS:
        return data[item[1] : item[2]]
    start, end = _range(item, _OCTETS_IN_PIECES)
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    return b"".join(_octets(data, piece, depth + 1) for piece in _items(data, start, end))
