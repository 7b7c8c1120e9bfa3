"""Names of attached files: as they are shown, and as a download carries them (RFC 6266, RFC 5987)."""

import re
import unicodedata
from urllib.parse import quote

MAX_NAME = 120
MAX_SUFFIX = 20
UNNAMED = "attachment"
# No path on any system, and nothing that a shell or a header takes for more than a letter.
_UNSAFE = re.compile(r'[\\/:*?"<>|;%`$\x00-\x1f\x7f]+')
# Windows takes these for devices, whatever follows the dot.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(?=\.|$)", re.IGNORECASE)


def safe_name(name: str) -> str:
    """A file name without path, controls and letters that turn the others around; never empty."""
    # Format letters (Cf) hide, join and turn around what stands beside them; C* are no letters at all.
    name = "".join(
        c for c in unicodedata.normalize("NFC", name) if not unicodedata.category(c).startswith("C")
    )
    name = re.split(r"[\\/]", name)[-1]
    name = " ".join(_UNSAFE.sub("_", name).split()).strip(" .")
    name = _DEVICES.sub(r"_\1", name, count=1) if _DEVICES.match(name) else name
    if len(name) > MAX_NAME:
        stem, dot, suffix = name.rpartition(".")
        short = f"{dot}{suffix}" if stem and len(suffix) <= MAX_SUFFIX else ""
        name = (stem if short else name)[: MAX_NAME - len(short)].rstrip(" .") + short
    return name or UNNAMED


def as_attachment(name: str) -> str:
    """The Content-Disposition of a download with this name."""
    name = safe_name(name)
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = safe_name(plain) if plain.strip(" ._") else UNNAMED
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
