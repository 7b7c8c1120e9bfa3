"""An evaluation for people: a plot (SVG or PNG), and a page that needs nothing but a browser."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from briefbox.errors import TrainingError
from briefbox.schemas import BRIEF_FIELDS
from training.evaluate import Change, Evaluation

PLOT_SUFFIXES = (".svg", ".png")
COLUMN_INCHES, ROW_INCHES, DPI = 4.2, 3.6, 110
# Numbers are written into the cells of a confusion matrix up to so many labels.
MOST_NUMBERED = 14


def write_plot(path: Path, names: Sequence[str], found: Sequence[Evaluation]) -> None:
    """Write the plot, SVG or PNG by the ending. Raises TrainingError."""
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise TrainingError(f"{path} ends in {path.suffix or 'nothing'}; a plot is written as .svg or .png.")
    _write(path, draw(names, found, path.suffix.lower()[1:]))


def write_page(
    path: Path, names: Sequence[str], found: Sequence[Evaluation], changes: Sequence[Change], *, title: str
) -> None:
    """Write the page with its plot inside. Raises TrainingError."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    svg = draw(names, found, "svg").decode()
    html = pages.get_template("evaluation.html").render(
        title=title,
        names=names,
        found=found,
        rows=table(found),
        changes=changes,
        fields=BRIEF_FIELDS,
        plot=svg[svg.index("<svg") :],
    )
    _write(path, html.encode())


def table(found: Sequence[Evaluation]) -> list[tuple[str, list[float | None]]]:
    """Rows of figures, one column for each model: what the command prints and the page shows."""
    rows: list[tuple[str, list[float | None]]] = []
    for field in found[0].labels:
        for metric in ("accuracy", "macro_f1", "ece"):
            rows.append(
                (f"{field} {metric.replace('_', ' ')}", [e.value(f"{field}/{metric}") for e in found])
            )
    rows.append(("urgent recall", [e.urgent_recall for e in found]))
    for field in found[0].texts:
        for metric in ("rouge1", "rouge2", "rougeL", "edit", "kept", "words"):
            rows.append((f"{field} {metric}", [e.value(f"{field}/{metric}") for e in found]))
    rows.append(("facts grounded", [e.grounding.rate for e in found]))
    rows.append(("kept unchanged", [e.kept for e in found]))
    rows.append(("seconds an email, median", [e.seconds_median for e in found]))
    rows.append(("memory, GB", [round(e.memory / 1e9, 1) for e in found]))
    return rows


def draw(names: Sequence[str], found: Sequence[Evaluation], kind: str) -> bytes:
    """Reliability and abstention of each labelled field, and the confusion of the first model."""
    # Without pyplot: no window system is looked for, and nothing is global.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fields = list(found[0].labels)
    figure = Figure(
        figsize=(3 * COLUMN_INCHES, ROW_INCHES * max(1, len(fields))), layout="constrained", dpi=DPI
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(max(1, len(fields)), 3, squeeze=False)
    for row, field in zip(grid, fields, strict=False):
        _reliability(row[0], field, names, found)
        _abstention(row[1], field, names, found)
        _confusion(row[2], field, names[0], found[0])
    if not fields:
        for axes in grid[0]:
            axes.set_axis_off()
        grid[0][1].text(0.5, 0.5, "no field with labels", ha="center")
    buffer = io.BytesIO()
    # No date in the file: the same evaluation gives the same bytes.
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else {})
    return buffer.getvalue()


def _reliability(axes: Any, field: str, names: Sequence[str], found: Sequence[Evaluation]) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="as sure as right")
    for name, each in zip(names, found, strict=True):
        scores = each.labels.get(field)
        if scores is not None and scores.reliability:
            axes.plot(
                [b.confidence for b in scores.reliability],
                [b.accuracy for b in scores.reliability],
                marker="o",
                markersize=4,
                label=f"{name} (ECE {scores.ece:.2f})",
            )
    axes.set(
        title=f"{field}: reliability", xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1.02)
    )
    axes.legend(fontsize="small", loc="upper left")


def _abstention(axes: Any, field: str, names: Sequence[str], found: Sequence[Evaluation]) -> None:
    for name, each in zip(names, found, strict=True):
        scores = each.labels.get(field)
        if scores is not None and scores.abstention:
            axes.plot(
                [answered for _, answered, _ in scores.abstention],
                [right for _, _, right in scores.abstention],
                marker=".",
                label=name,
            )
    axes.set(
        title=f"{field}: leaving doubtful ones to people",
        xlabel="share answered",
        ylabel="share right of those",
        xlim=(0, 1.02),
        ylim=(0, 1.02),
    )
    if axes.lines:
        axes.legend(fontsize="small", loc="lower left")


def _confusion(axes: Any, field: str, name: str, found: Evaluation) -> None:
    confusion = found.labels[field].confusion
    labels = list(found.labels[field].classes)
    counts = [[confusion.get(truth, {}).get(said, 0) for said in labels] for truth in labels]
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if len(labels) <= MOST_NUMBERED:
        for y, row in enumerate(counts):
            for x, count in enumerate(row):
                if count:
                    colour = "white" if shares[y][x] > 0.55 else "black"
                    axes.text(x, y, str(count), ha="center", va="center", fontsize="x-small", color=colour)
    axes.set_xticks(range(len(labels)), labels, rotation=60, ha="right", fontsize="x-small")
    axes.set_yticks(range(len(labels)), labels, fontsize="x-small")
    axes.set(title=f"{field}: {name}", xlabel="said", ylabel="right")


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise TrainingError(f"{path} cannot be written ({error.strerror}); choose another file.") from error
