"""The charts of the page of numbers: which values, in which words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import log
from statistics import median

from briefbox.schemas import BRIEF_FIELDS
from briefbox.store.numbers import BINS, Day
from briefbox.tables import Promotion
from desk.insight.charts import (
    LEFT,
    PLOT_WIDTH,
    RIGHT,
    WIDTH,
    Chart,
    Mark,
    Tick,
    bars,
    line,
    nice_top,
    through,
    x_at,
    x_labels,
    y_at,
    y_axis,
)

FIELDS = tuple(BRIEF_FIELDS)
# Longer ranges are drawn by week: a bar for each day would be thinner than a hair.
MOST_DAYS = 92
# Of fewer a share says nothing.
FEW = 20


# Places on the axis of times, in seconds.
TIMES = (
    (1, "1 s"),
    (10, "10 s"),
    (60, "1 min"),
    (600, "10 min"),
    (3600, "1 h"),
    (36_000, "10 h"),
    (360_000, "100 h"),
)


class _Scale:
    """Times from a second on a logarithmic axis, up to the first place that is not exceeded."""

    def __init__(self, highest: float) -> None:
        self._top = next(
            (n for n, (seconds, _) in enumerate(TIMES) if seconds >= highest and n), len(TIMES) - 1
        )

    def at(self, seconds: float) -> float:
        """From 0 to 1."""
        return min(1.0, log(max(1.0, seconds)) / log(TIMES[self._top][0]))

    def ticks(self) -> list[Tick]:
        """The places up to the highest."""
        return [Tick(y_at(self.at(seconds), 1.0), text) for seconds, text in TIMES[: self._top + 1]]


@dataclass(frozen=True, slots=True)
class Span:
    """A day, or a week in a long range."""

    first: date
    days: Sequence[Day]

    @property
    def label(self) -> str:
        """For the axis."""
        return f"{self.first.day} {self.first:%b}"


def by_span(days: Mapping[date, Day]) -> list[Span]:
    """Days, or weeks (from Monday) where these are many."""
    if len(days) <= MOST_DAYS:
        return [Span(when, [day]) for when, day in days.items()]
    weeks: dict[date, list[Day]] = {}
    for when, day in days.items():
        weeks.setdefault(when - timedelta(days=when.weekday()), []).append(day)
    return [Span(when, found) for when, found in weeks.items()]


def totals(days: Mapping[date, Day]) -> list[tuple[str, str]]:
    """The range in four figures."""
    found = list(days.values())
    medians = [day.brief_median for day in found if day.brief_median is not None]
    within = sum(day.within for day in found)
    decided = within + sum(day.late for day in found)
    return [
        ("new conversations", f"{sum(sum(day.opened.values()) for day in found):,}"),
        ("finished", f"{sum(day.finished for day in found):,}"),
        ("to a brief, on the median day", spoken(median(medians)) if medians else "–"),
        ("answered within target", _share(within, decided)),
    ]


def volume(spans: Sequence[Span]) -> Chart:
    """How many conversations began."""
    values = [sum(sum(day.opened.values()) for day in span.days) for span in spans]
    top = nice_top(max(values, default=0))
    total, most = sum(values), max(range(len(values)), key=values.__getitem__, default=0)
    return Chart(
        id="volume",
        title=f"New conversations by {_unit(spans)}",
        sentence=f"{total:,} in all; most on {_when(spans, most)}: {values[most]:,}." if total else "None.",
        y_ticks=y_axis(top, whole=True),
        x_ticks=x_labels([span.label for span in spans]),
        columns=(_unit(spans).capitalize(), "New"),
        rows=[(str(span.first), f"{n:,}") for span, n in zip(spans, values, strict=True)],
        bars=bars([("a", values)], top),
        empty=not total,
    )


def backlog(spans: Sequence[Span], by_day: Mapping[date, int]) -> Chart:
    """How many were unfinished at the end."""
    values = [by_day[span.first + timedelta(days=len(span.days) - 1)] for span in _clipped(spans, by_day)]
    top = nice_top(max(values, default=0))
    first, last = (values[0], values[-1]) if values else (0, 0)
    return Chart(
        id="backlog",
        title=f"Unfinished at the end of the {_unit(spans)}",
        sentence=f"{first:,} at the beginning, {last:,} at the end.",
        y_ticks=y_axis(top, whole=True),
        x_ticks=x_labels([span.label for span in spans]),
        columns=(_unit(spans).capitalize(), "Unfinished"),
        rows=[(str(span.first), f"{n:,}") for span, n in zip(spans, values, strict=True)],
        lines=[line("unfinished", "a", values, top)],
        notes=[
            "Open, put off and answered ones. A conversation that was finished and reopened counts as unfinished all the time between, since only its last finish is kept; merged ones do not count."
        ],
        empty=not any(values),
    )


def time_to_brief(spans: Sequence[Span]) -> Chart:
    """From the mail's arrival on its server to its brief."""
    middle = [_middle([day.brief_median for day in span.days]) for span in spans]
    most = [_middle([day.brief_p95 for day in span.days]) for span in spans]
    scale = _Scale(max((v for v in most if v is not None), default=1.0))
    scaled = [[None if v is None else scale.at(v) for v in values] for values in (middle, most)]
    known = [v for v in middle if v is not None]
    return Chart(
        id="time-to-brief",
        title="From a mail's arrival to its brief",
        sentence=f"Half of the briefs were there after {spoken(median(known))} on the median {_unit(spans)}."
        if known
        else "No brief was written.",
        y_ticks=scale.ticks(),
        x_ticks=x_labels([span.label for span in spans]),
        columns=(_unit(spans).capitalize(), "Median", "95 of 100 within", "Briefs"),
        rows=[
            (
                str(span.first),
                "–" if mid is None else spoken(mid),
                "–" if high is None else spoken(high),
                f"{sum(day.briefs for day in span.days):,}",
            )
            for span, mid, high in zip(spans, middle, most, strict=True)
        ],
        lines=[line("median", "a", scaled[0], 1.0), line("95 of 100 within", "b", scaled[1], 1.0)],
        legend=(("median", "a"), ("95 of 100 within", "b")),
        notes=[
            "Each line of the grid is several times the one below, so that one bad day does not hide the others. Without older mail, which waits behind all new mail."
        ],
        empty=not known,
    )


def in_time(spans: Sequence[Span]) -> Chart:
    """How many of those that began then were answered within their target."""
    pairs = [(sum(day.within for day in span.days), sum(day.late for day in span.days)) for span in spans]
    within, late = [sum(values) for values in zip(*pairs, strict=True)] if pairs else (0, 0)
    top = nice_top(max((a + b for a, b in pairs), default=0))
    yet = sum(day.in_time_yet for span in spans for day in span.days)
    return Chart(
        id="in-time",
        title="First answers within target",
        sentence=f"{_share(within, within + late)} of {within + late:,}, by the {_unit(spans)} on which they began."
        + (f" {yet:,} more wait and are not due yet." if yet else "")
        if within + late
        else "Nothing was due.",
        y_ticks=y_axis(top, whole=True),
        x_ticks=x_labels([span.label for span in spans]),
        columns=(_unit(spans).capitalize(), "Within target", "Too late"),
        rows=[(str(span.first), f"{a:,}", f"{b:,}") for span, (a, b) in zip(spans, pairs, strict=True)],
        bars=bars([("a", [a for a, _ in pairs]), ("c", [b for _, b in pairs])], top),
        legend=(("within target", "a"), ("too late, or due and not answered", "c")),
        notes=[
            "An answer is the first mail of ours, or that it was finished. By the priorities and targets of today."
        ],
        empty=not within + late,
    )


def judged(spans: Sequence[Span], name: str, changes: Sequence[Promotion]) -> Chart:
    """What agents did with one field of the briefs of finished conversations, in shares."""
    counts: list[tuple[int, int, int]] = []
    for span in spans:
        of = sum(day.judged for day in span.days)
        corrected = min(of, sum(day.corrected.get(name, 0) for day in span.days))
        accepted = min(of - corrected, sum(day.accepted.get(name, 0) for day in span.days))
        counts.append((accepted, of - corrected - accepted, corrected))
    total = [sum(values) for values in zip(*counts, strict=True)] if counts else [0, 0, 0]
    of = sum(total)
    shares = [[100 * n / sum(c) if sum(c) else 0.0 for n in c] for c in counts]
    columns = list(zip(*shares, strict=True)) if shares else [(), (), ()]
    marks, notes = _marks(spans, changes)
    return Chart(
        id=f"judged-{name}",
        title=name.capitalize(),
        sentence=f"Of {of:,} finished: {_share(total[0], of)} accepted, {_share(total[1], of)} left as it was, {_share(total[2], of)} corrected."
        if of
        else "Nothing was finished.",
        y_ticks=[Tick(y_at(v, 100), f"{v} %") for v in (0, 25, 50, 75, 100)],
        x_ticks=x_labels([span.label for span in spans]),
        columns=(_unit(spans).capitalize(), "Accepted", "Untouched", "Corrected"),
        rows=[(str(span.first), *(f"{n:,}" for n in c)) for span, c in zip(spans, counts, strict=True)],
        bars=bars([("a", columns[0]), ("b", columns[1]), ("c", columns[2])], 100),
        legend=(("accepted", "a"), ("untouched", "b"), ("corrected", "c")),
        marks=marks,
        notes=notes,
        empty=not of,
    )


def calibration(days: Mapping[date, Day], name: str) -> Chart:
    """How sure the model was, against how often agents left or confirmed what it said."""
    bins: dict[int, list[float]] = {}
    for day in days.values():
        for place, (number, right, total) in day.sure.get(name, {}).items():
            found = bins.setdefault(place, [0, 0, 0.0])
            found[0] += number
            found[1] += right
            found[2] += total
    points: list[tuple[float, float] | None] = []
    rows: list[Sequence[str]] = []
    for place in sorted(bins):
        of, good, sum_of = bins[place]
        few = " (few)" if of < FEW else ""
        rows.append(
            (
                f"{place * 100 // BINS} to {(place + 1) * 100 // BINS} %",
                f"{sum_of / of * 100:.0f} %",
                f"{good / of * 100:.0f} %",
                f"{of:,.0f}{few}",
            )
        )
        if of >= FEW:
            at = round(LEFT + PLOT_WIDTH * sum_of / of, 1)
            points.append((at, y_at(100 * good / of, 100)))
    count = int(sum(found[0] for found in bins.values()))
    sure = sum(found[2] for found in bins.values())
    good_all = sum(found[1] for found in bins.values())
    return Chart(
        id=f"sure-{name}",
        title=f"How sure it was of the {name}",
        sentence=f"Of {count:,} it was {sure / count * 100:.0f} % sure on average, and agents left or confirmed {good_all / count * 100:.0f} %. On the dashed line it is as sure as it is right; above it, more often right than it thinks."
        if count
        else "No finished conversation has a confidence.",
        y_ticks=[Tick(y_at(v, 100), f"{v} %") for v in (0, 25, 50, 75, 100)],
        x_ticks=[
            Tick(min(LEFT + PLOT_WIDTH * v / 100, WIDTH - RIGHT - 12), f"{v} %") for v in (0, 25, 50, 75, 100)
        ],
        columns=("Sure", "On average", "Left or confirmed", "Conversations"),
        rows=rows,
        lines=[through("left or confirmed", "a", points)],
        diagonal=True,
        notes=[
            f"Tenths with fewer than {FEW} conversations are in the table only: so few say next to nothing. What was left untouched was not always looked at."
        ],
        empty=not count,
    )


# --- words


def spoken(seconds: float) -> str:
    """12 s, 3.5 min, 2.1 h."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _share(part: int, of: int) -> str:
    return f"{100 * part / of:.0f} %" if of else "–"


def _unit(spans: Sequence[Span]) -> str:
    return "week" if any(len(span.days) > 1 for span in spans) else "day"


def _when(spans: Sequence[Span], at: int) -> str:
    prefix = "the week from " if _unit(spans) == "week" else ""
    return f"{prefix}{spans[at].label}"


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _clipped(spans: Sequence[Span], by_day: Mapping[date, int]) -> list[Span]:
    """The first week of a range may have begun before it: its days are those that are in the range."""
    first = min(by_day, default=date.min)
    return [span if span.first >= first else Span(first, span.days) for span in spans]


def _marks(spans: Sequence[Span], changes: Sequence[Promotion]) -> tuple[list[Mark], list[str]]:
    """Lines where another adapter came into use: letters in the drawing, names below."""
    marks: list[Mark] = []
    notes: list[str] = []
    for n, change in enumerate(changes[:26]):
        letter = chr(ord("A") + n)
        when = change.created_at.date()
        at = max((i for i, span in enumerate(spans) if span.first <= when), default=0)
        marks.append(Mark(round(x_at(at, len(spans)) - PLOT_WIDTH / max(len(spans), 1) / 2, 1), letter))
        verb = "rolled back to" if change.kind == "rollback" else "put in use:"
        notes.append(f"{letter} {when:%d %b}: {verb} {change.adapter or 'the base model'}.")
    return marks, notes
