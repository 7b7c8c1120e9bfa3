"""The command `brief`: emails in, briefs out, without database, mailbox and queue."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from briefbox.cli.output import console, errors
from briefbox.errors import AdapterError, BriefboxError, ModelError, OutOfMemoryError
from briefbox.schemas import Brief, BriefRequest
from briefbox.settings import Settings, load_settings

if TYPE_CHECKING:
    from briefbox.cli.email_files import Found
    from models.engine import Engine

# Emails handed to the engine at once, in batches: it sorts them by length and wastes less.
BATCHES_AT_ONCE = 4
# So many emails in a row failing with the same sentence: the engine is broken, not the mail.
MAX_SAME_FAILURES = 20


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(brief)


def brief(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="An .eml file, a folder of them, a .jsonl file, or - for standard input.",
            show_default=False,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line for each email.")] = False,
    engine: Annotated[
        str, typer.Option(help="Engine in place of BRIEFBOX_ENGINE: transformers, openai or fake.")
    ] = "",
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a LoRA adapter to write the briefs with. Default: the one that comes with briefbox, for the packaged model."
        ),
    ] = None,
    categories: Annotated[
        Path | None,
        typer.Option(
            help='File with the categories: a JSON list of {"name", "description"}, or lines of `name: description`. Default: those of a new installation.'
        ),
    ] = None,
    text_language: Annotated[
        str,
        typer.Option(
            help="Language of headline and summary in place of BRIEFBOX_BRIEF_LANGUAGE: `email` or an ISO 639-1 code."
        ),
    ] = "",
) -> None:
    """Brief emails from files or standard input, without a database.

    A .jsonl file has a line {"id", "subject", "body"} for each email, and "from" where it is known. An email that
    cannot be read or briefed is named on standard error, the others go on, and the exit code is 1 at the end.
    """
    from briefbox.categories import DEFAULT_CATEGORIES
    from briefbox.cli.email_files import Reader, read_categories
    from training.default_adapter import shipped

    overrides = {"engine": engine, "brief_language": text_language}
    settings = load_settings(**{name: value for name, value in overrides.items() if value})
    reader = Reader(
        categories=read_categories(categories) if categories else DEFAULT_CATEGORIES,
        written_in="" if settings.brief_language == "email" else settings.brief_language,
        max_bytes=settings.max_email_bytes,
    )
    run = _Run(settings, adapter or shipped(settings), as_json=as_json)
    try:
        with _progress() as bar:
            task = bar.add_task("emails", total=None)
            for group in _groups(reader.read(paths), settings.batch_size * BATCHES_AT_ONCE):
                run.group(group)
                bar.advance(task, len(group))
    except BrokenPipeError:
        # `briefbox brief ... | head` has what it wanted. Python would complain when it closes the pipe at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if run.num_bad:
        raise typer.Exit(1)


class _Run:
    """One call of the command. The engine is made when the first email needs it."""

    def __init__(self, settings: Settings, adapter: Path | None, *, as_json: bool) -> None:
        self.settings, self.adapter_path, self.as_json = settings, adapter, as_json
        self.num_bad = 0
        self._engine: Engine | None = None
        self._adapter = ""
        self._last_failure, self._num_same = "", 0

    def group(self, group: "Sequence[Found]") -> None:
        """Brief these emails and print what came of each, in their order."""
        wanted = [number for number, found in enumerate(group) if found.request is not None]
        answers = dict(zip(wanted, self._ask([group[number].request for number in wanted]), strict=True))  # type: ignore[misc]
        for number, found in enumerate(group):
            answer = answers.get(number, found.problem)
            if isinstance(answer, str):
                self._bad(found, answer)
            elif self.as_json:
                sys.stdout.write(json.dumps(facts_of(found, answer), ensure_ascii=False) + "\n")
            else:
                _show(found, answer)
        sys.stdout.flush()

    def _ask(self, requests: Sequence[BriefRequest]) -> list[Brief | str]:
        """A brief, or why there is none, for each request: all at once, in halves, at last alone."""
        if not requests:
            return []
        engine = self._ready()
        try:
            briefs = engine.brief(requests, self._adapter)
            if len(briefs) != len(requests):
                raise ModelError(f"The engine gave {len(briefs)} briefs for {len(requests)} emails.")
            self._num_same = 0
            return list(briefs)
        except AdapterError:
            raise
        except OutOfMemoryError as error:
            if len(requests) == 1:
                return [self._half(requests[0], error)]
            middle = len(requests) // 2
            return self._ask(requests[:middle]) + self._ask(requests[middle:])
        except Exception as error:
            if len(requests) == 1:
                return [self._failure(error)]
            return [answer for request in requests for answer in self._ask([request])]

    def _half(self, request: BriefRequest, error: OutOfMemoryError) -> Brief | str:
        """An email that does not fit alone: once more with half of its text."""
        from briefbox.store.requests import half

        request, _ = half(request, self.settings.max_email_tokens)
        try:
            [made] = self._ready().brief([request], self._adapter)
        except OutOfMemoryError:
            return self._failure(
                ModelError(f"It does not fit into memory, not even half of its text. {error}")
            )
        except Exception as other:
            return self._failure(other)
        return made.model_copy(update={"cut": True})

    def _failure(self, error: Exception) -> str:
        """The sentence about an email that failed alone. Raises ModelError when nothing works any more."""
        why = str(error) if isinstance(error, BriefboxError) else f"{type(error).__name__}: {error}"
        self._num_same = self._num_same + 1 if why == self._last_failure else 1
        self._last_failure = why
        if self._num_same >= MAX_SAME_FAILURES:
            raise ModelError(f"The last {self._num_same} emails all failed, so this run ends: {why}")
        return why

    def _ready(self) -> "Engine":
        if self._engine is None:
            from models.engine import make_engine

            self._engine = make_engine(self.settings)
            if self.adapter_path is not None:
                self._adapter = self._engine.load_adapter(self.adapter_path)
        return self._engine

    def _bad(self, found: "Found", why: str) -> None:
        self.num_bad += 1
        errors.print(f"{found.where}: {why}", style="red", markup=False, soft_wrap=True)


def _groups(emails: "Iterator[Found]", size: int) -> "Iterator[list[Found]]":
    while group := list(islice(emails, size)):
        yield group


def _progress() -> Progress:
    """A count of emails on standard error, where a person sees it and no brief is printed into it."""
    return Progress(
        TextColumn("{task.completed} {task.description}"),
        TimeElapsedColumn(),
        console=errors,
        # Else rich would print standard output on standard error.
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not errors.is_terminal or console.is_terminal,
        transient=True,
    )


def facts_of(found: "Found", made: Brief) -> dict[str, Any]:
    """A brief as its JSON line."""
    by = made.provenance
    return {
        found.key: found.name,
        "headline": made.headline,
        "summary": made.summary,
        "priority": made.priority.label,
        "priority_confidence": made.priority.confidence,
        "priority_scores": made.priority.scores,
        "category": made.category.label,
        "category_confidence": made.category.confidence,
        "category_scores": made.category.scores,
        "needs_human": list(made.needs_human),
        "language": made.language,
        "grounding": made.grounding.model_dump(mode="json"),
        "instructions_found": made.instructions_found,
        "cut": made.cut or found.cut,
        "tokens_in": by.tokens_in,
        "tokens_out": by.tokens_out,
        "seconds": by.seconds,
        "engine": by.engine,
        "base_model": by.base_model,
        "adapter": by.adapter,
        "prompt_version": by.prompt_version,
    }


def _show(found: "Found", made: Brief) -> None:
    """A brief for a person to read."""
    labels = []
    for field, score in (("priority", made.priority), ("category", made.category)):
        sure = "" if score.confidence is None else f" {score.confidence:.0%}"
        labels.append(f"{score.label}{sure}{' (needs a human)' if field in made.needs_human else ''}")
    notes = []
    if made.language:
        notes.append(f"language {made.language}")
    if made.cut or found.cut:
        notes.append("only a part was read")
    if made.instructions_found:
        notes.append("holds text addressed to an assistant")
    if made.grounding.removed:
        notes.append(f"left out, not in the email: {', '.join(made.grounding.removed)}")
    if made.grounding.quoted:
        notes.append(f"quoted from the email: {', '.join(made.grounding.quoted)}")
    console.print(Text(found.name, style="dim"), soft_wrap=True)
    for text, style in (
        (made.headline, "bold"),
        (" | ".join(labels), ""),
        (made.summary, ""),
        ("; ".join(notes), "yellow"),
    ):
        if text:
            console.print(Padding(Text(text, style=style), (0, 0, 0, 2)))
    console.print()
