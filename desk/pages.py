"""The templates and how they say times, sizes and percentages."""

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from desk.file_names import safe_name
from desk.times import zone

HERE = Path(__file__).parent
STATIC = HERE / "static"

MINUTE, HOUR, DAY = 60, 3600, 86400


@lru_cache(maxsize=1)
def load_pages() -> Environment:
    """The environment of all templates: everything is escaped unless a template says otherwise, and none does."""
    pages = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(age=age, ago=ago, exact=exact, size=size, percent=percent, first_line=first_line)
    pages.filters.update(safe_name=safe_name, duration=duration)
    pages.filters.update(due_words=due_words, due_class=due_class, local_time=local_time, initials=initials)
    return pages


def age(moment: datetime) -> str:
    """How long ago, in one short unit. static/desk.js keeps it up to date and must say the same."""
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    if seconds < MINUTE:
        return "now"
    if seconds < HOUR:
        return f"{seconds // MINUTE} min"
    if seconds < DAY:
        return f"{seconds // HOUR} h"
    days = seconds // DAY
    return "1 day" if days == 1 else f"{days} days"


def ago(moment: datetime) -> str:
    """The same inside a sentence."""
    said = age(moment)
    return "just now" if said == "now" else f"{said} ago"


def due_words(moment: datetime) -> str:
    """How long there is until then, or since when it is too late. static/common.js must say the same."""
    seconds = int((moment - datetime.now(UTC)).total_seconds())
    said = "1 min" if abs(seconds) < MINUTE else _long(abs(seconds))
    return f"due in {said}" if seconds > 0 else f"{said} overdue"


def _long(seconds: int) -> str:
    if seconds < HOUR:
        return f"{seconds // MINUTE} min"
    if seconds < 2 * DAY:
        return f"{seconds // HOUR} h"
    return f"{seconds // DAY} days"


def due_class(moment: datetime) -> str:
    """late, soon (within an hour) or later."""
    seconds = (moment - datetime.now(UTC)).total_seconds()
    return "late" if seconds <= 0 else "soon" if seconds < HOUR else "later"


def local_time(moment: datetime, timezone: str) -> str:
    """A moment in the desk's time zone that stays true however long a page is open."""
    there = moment.astimezone(zone(timezone))
    return f"{there:%a} {there.day} {there:%b}, {there:%H:%M}"


def initials(name: str) -> str:
    """Up to two letters for a person."""
    words = [word for word in name.partition("@")[0].replace(".", " ").split() if word[0].isalnum()]
    return "".join(word[0] for word in (words[:1] + words[1:][-1:])).upper() or "?"


def exact(moment: datetime) -> str:
    """The moment itself, for a tooltip."""
    return f"{moment.astimezone(UTC):%d %b %Y, %H:%M} UTC"


def size(num_bytes: int) -> str:
    """Bytes for people."""
    if num_bytes < 1000:
        return f"{num_bytes} bytes"
    if num_bytes < 1_000_000:
        return f"{num_bytes / 1000:.0f} kB"
    return f"{num_bytes / 1_000_000:.1f} MB"


def duration(seconds: float) -> str:
    """A stretch of time for people."""
    minutes = round(seconds / MINUTE)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def percent(share: float) -> str:
    """A probability for people."""
    return f"{round(share * 100)} %"


def first_line(text: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
