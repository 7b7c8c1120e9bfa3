"""Lengths of time as people write them: "1 h", "30 min", "2 days", "1 h 30 min"."""

import re

from briefbox.errors import InvalidValueError

MINUTES = {"min": 1, "h": 60, "day": 24 * 60, "week": 7 * 24 * 60}
_UNITS = {
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 1),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 60),
    **dict.fromkeys(("d", "day", "days"), 24 * 60),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 24 * 60),
}
_PART = re.compile(r"(\d{1,6}(?:\.\d{1,2})?)\s*([a-z]+)")


def minutes_of(text: str) -> int | None:
    """The minutes; None for nothing and for "none". Raises InvalidValueError."""
    said = " ".join(text.lower().replace(",", " ").split())
    if said in ("", "none", "-", "–"):
        return None
    parts = _PART.findall(said)
    if _PART.sub("", said).strip() or not parts or any(unit not in _UNITS for _, unit in parts):
        raise InvalidValueError(
            f"“{text.strip()[:60]}” is no length of time; expected one such as 30 min, 4 h, 2 days or 1 h 30 min, or nothing."
        )
    return round(sum(float(number) * _UNITS[unit] for number, unit in parts))


def in_words(minutes: int | None) -> str:
    """The same, to be read and entered again; "" for none."""
    if minutes is None:
        return ""
    parts: list[str] = []
    # Whole weeks are said as days: people count working time in those.
    for unit in ("day", "h", "min"):
        number, minutes = divmod(minutes, MINUTES[unit])
        if number:
            plural = "s" if unit == "day" and number > 1 else ""
            parts.append(f"{number} {unit}{plural}")
    return " ".join(parts) or "0 min"
