"""Charts as inline SVG: the geometry is worked out here, templates/charts.html draws it.

Why not by a plotting library: docs/decisions/charts-of-our-own.md. Series differ by dash, shape and word, and only then by colour;
every chart comes with a sentence and a table of what it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10

WIDTH, HEIGHT = 420, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 18, 26
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
MAX_X_LABELS = 6


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis and what stands there."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A line as SVG points, in pieces where values are missing; `dots` are single values."""

    name: str
    style: str  # a, b, c: the class that says dash and colour
    pieces: Sequence[str]
    dots: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle; `style` as in Drawn."""

    x: float
    y: float
    width: float
    height: float
    style: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at which something changed, with its letter."""

    at: float
    text: str


@dataclass(slots=True)
class Chart:
    """Everything that the template draws, and the same as words and as a table."""

    id: str
    title: str
    sentence: str
    y_ticks: Sequence[Tick]
    x_ticks: Sequence[Tick]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    lines: Sequence[Drawn] = ()
    bars: Sequence[Bar] = ()
    marks: Sequence[Mark] = ()
    legend: Sequence[tuple[str, str]] = ()  # name and style, where there are several
    diagonal: bool = False
    notes: Sequence[str] = field(default_factory=list)
    empty: bool = False
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM

    @property
    def bar_paths(self) -> list[tuple[str, str]]:
        """All bars of a style as one path: a third of the bytes of a rectangle for each."""
        paths: dict[str, list[str]] = {}
        for bar in self.bars:
            paths.setdefault(bar.style, []).append(
                f"M{bar.x:g} {bar.y:g}h{bar.width:g}v{bar.height:g}h{-bar.width:g}z"
            )
        return [(style, "".join(parts)) for style, parts in paths.items()]


def nice_top(value: float) -> float:
    """The next round number: 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= value * 0.999999)


def y_axis(top: float, *, whole: bool = False, unit: str = "") -> list[Tick]:
    """Ticks from 0 to `top`; of whole things no halves."""
    parts = 4 if top in (4.0, 8.0) or top % 4 == 0 else 5 if top % 5 == 0 or not whole else 2
    if whole and top < parts:
        parts = max(1, int(top))
    values = [top * n / parts for n in range(parts + 1)]
    return [Tick(y_at(v, top), f"{number(v)}{unit}") for v in values if not whole or v == int(v)]


def x_labels(labels: Sequence[str]) -> list[Tick]:
    """As many of them as can be read, the first among them."""
    step = max(1, ceil(len(labels) / MAX_X_LABELS))
    return [Tick(x_at(n, len(labels)), text) for n, text in enumerate(labels) if n % step == 0]


def x_at(n: int, of: int) -> float:
    """The middle of the n-th of so many slots."""
    return round(LEFT + PLOT_WIDTH * (n + 0.5) / max(of, 1), 1)


def y_at(value: float, top: float) -> float:
    """The height of a value."""
    return round(TOP + PLOT_HEIGHT * (1 - min(max(value, 0.0), top) / top), 1)


def line(name: str, style: str, values: Sequence[float | None], top: float) -> Drawn:
    """Values in slots of the same width; None leaves a gap."""
    points = [
        None if value is None else (x_at(n, len(values)), y_at(value, top)) for n, value in enumerate(values)
    ]
    return through(name, style, points)


def through(name: str, style: str, points: Sequence[tuple[float, float] | None]) -> Drawn:
    """A line through these points, broken where one is None."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is not None:
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    dots = [point for point in points if point is not None] if len(points) <= 40 else []
    dots += [piece[0] for piece in pieces if len(piece) == 1 and piece[0] not in dots]
    return Drawn(
        name, style, [" ".join(f"{x},{y}" for x, y in piece) for piece in pieces if len(piece) > 1], dots
    )


def bars(series: Sequence[tuple[str, Sequence[float]]], top: float) -> list[Bar]:
    """Stacked from below in the order given: (style, values)."""
    count = max((len(values) for _, values in series), default=0)
    slot = PLOT_WIDTH / max(count, 1)
    width = round(max(1.0, slot * 0.78), 1)
    found: list[Bar] = []
    for n in range(count):
        base = 0.0
        for style, values in series:
            if values[n] > 0:
                upper, lower = y_at(base + values[n], top), y_at(base, top)
                found.append(
                    Bar(
                        round(LEFT + slot * n + (slot - width) / 2, 1),
                        upper,
                        width,
                        round(max(lower - upper, 0.5), 1),
                        style,
                    )
                )
                base += values[n]
    return found


def number(value: float) -> str:
    """Short: 1,200, 0.25, 3."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def loss_curve(run_id: int, losses: Sequence[Sequence[float]], total_steps: int) -> Chart | None:
    """How the loss of a run went; None before there are two points."""
    if len(losses) < 2:
        return None
    first, last = losses[0], losses[-1]
    lowest = min(losses, key=lambda point: point[1])
    top = nice_top(max(loss for _, loss in losses))
    end = max(total_steps, int(last[0]), 1)
    points = [(round(LEFT + PLOT_WIDTH * step / end, 1), y_at(loss, top)) for step, loss in losses]
    shown = losses[:: max(1, len(losses) // 12)]
    return Chart(
        id=f"loss-{run_id}",
        title=f"Loss of run {run_id}",
        sentence=f"The loss began at {first[1]:.3f}, is {last[1]:.3f} at step {last[0]:.0f}, and was lowest at step {lowest[0]:.0f} ({lowest[1]:.3f}).",
        y_ticks=y_axis(top),
        x_ticks=[
            Tick(round(LEFT + PLOT_WIDTH * part / 4, 1), number(round(end * part / 4)))
            for part in (0, 1, 2, 3)
        ]
        + [Tick(WIDTH - RIGHT - 8, number(end))],
        columns=("Step", "Loss"),
        rows=[(f"{step:.0f}", f"{loss:.3f}") for step, loss in shown],
        lines=[Drawn("loss", "a", [" ".join(f"{x},{y}" for x, y in points)], [])],
    )
