"""Which adapters are ready in the engine: the champion, those of mailboxes, and the one on trial.

An adapter is loaded between batches, tried on one small email, and used only if both went well. One that is
refused raises an alert and the last good champion goes on; the file is not read again until the database row
changes or a minute has passed.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from briefbox.db import Database
from briefbox.errors import AdapterError, BriefboxError, DatabaseError, ServerAwayError
from briefbox.schemas import BriefRequest, Category
from briefbox.settings import Settings
from briefbox.store import adapters, alerts, mailboxes
from briefbox.tables import Adapter
from models.engine import Engine

log = logging.getLogger(__name__)

# Beside the champion; a rank-8 adapter of the packaged model is 5 MB, of an 8B model about 80 MB.
MAX_RESIDENT = 4
RETRY_SECONDS = 60.0
# A harmless email, to try what a model or a server can do.
PROBE = BriefRequest(subject="Hello", sender="warm-up", text="Is this on?", categories=())
_ALERT = "adapter "


@dataclass(frozen=True, slots=True)
class _Refusal:
    row: dict[str, Any] | None  # the database row that it was refused with
    at: float
    reason: str


class Residents:
    """The engine's adapters. All methods are called between batches, by the thread that owns the engine."""

    def __init__(self, database: Database, settings: Settings, engine: Engine) -> None:
        """Nothing is loaded until mail asks for it."""
        self.database, self.settings, self.engine = database, settings, engine
        self.champion = ""  # the one in use: the last champion that was good
        self._rows: dict[str, Adapter] = {}
        self._champion_row: Adapter | None = None
        self._shadow_row: Adapter | None = None
        self._loaded: dict[str, tuple[str, str]] = {}  # name -> path and sum; least recently used first
        self._refused: dict[str, _Refusal] = {}

    def look(self, names: Iterable[str] = ()) -> None:
        """Read what the database says now about the champion, the shadow and the adapters of these names."""
        with self.database.read() as session:
            rows = adapters.named(session, {name for name in names if name})
        self._rows = {row.name: row for row in rows}
        self._champion_row = next((row for row in rows if row.state == "champion"), None)
        self._shadow_row = next((row for row in rows if row.state == "shadow"), None)

    def use(self, name: str, categories: tuple[Category, ...] = ()) -> str:
        """Make the adapter `name` ready, "" for the champion, and return the one to use in its place if it is refused.

        Like `shadow` and `lost`, raises ServerAwayError when a model server is away: no adapter is refused for that.
        """
        if name:
            row = self._rows.get(name)
            if row is None or row.state in adapters.UNUSABLE:
                why = "there is none of this name" if row is None else f"it was {row.state}"
                self._refuse(
                    name,
                    row,
                    f"{why}, but a mailbox asks for it; assign another with: briefbox adapters assign",
                )
            elif self._ready(row, categories):
                return name
        return self._use_champion(categories)

    def shadow(self, categories: tuple[Category, ...] = ()) -> str:
        """Make the adapter on trial ready and return its name; "" when there is none that loads."""
        row = self._shadow_row
        return row.name if row is not None and self._ready(row, categories) else ""

    @property
    def shadow_name(self) -> str:
        """The adapter on trial by the database; "" when there is none."""
        return self._shadow_row.name if self._shadow_row is not None else ""

    def lost(self, name: str, error: Exception, categories: tuple[Category, ...] = ()) -> str:
        """The engine no longer takes an adapter that was ready. Returns the one to use instead."""
        self._forget(name)
        self._refuse(name, self._rows.get(name), str(error))
        if self.champion == name:
            self.champion = ""
        return self._use_champion(categories)

    def tidy(self, session: Session) -> None:
        """Resolve alerts about adapters that nobody asks for any more."""
        open_ = [a.key for a in alerts.open_alerts(session) if a.key.startswith(_ALERT)]
        if not open_ and not self._refused:
            return
        wanted = {row.name for row in adapters.named(session, ())}
        wanted |= {mailbox.adapter for mailbox in mailboxes.all_of(session)}
        for key in open_:
            if key.removeprefix(_ALERT) not in wanted:
                alerts.resolve(session, key)
        self._refused = {name: refusal for name, refusal in self._refused.items() if name in wanted}

    def __str__(self) -> str:
        """For people: what is in use, and what is refused and why."""
        others = [name for name in self._loaded if name != self.champion]
        parts = [self.champion or "bare base model"]
        parts += [f"and {', '.join(others)}"] if others else []
        refused = [f"; adapter {name} refused: {refusal.reason}" for name, refusal in self._refused.items()]
        return " ".join(parts) + "".join(refused)

    def _use_champion(self, categories: tuple[Category, ...]) -> str:
        row = self._champion_row
        before = self.champion
        if row is None:
            self.champion = ""
        elif self._ready(row, categories):
            self.champion = row.name
        if self.champion != before:
            log.info("adapter in use: %s", self.champion or "none, the bare base model")
        return self.champion

    def _ready(self, row: Adapter, categories: tuple[Category, ...]) -> bool:
        """Load an adapter unless it is there. False when it is refused, now or a moment ago."""
        version = (row.path, row.weights_sha256)
        if self._loaded.get(row.name) == version and row.name in self.engine.adapters:
            self._loaded[row.name] = self._loaded.pop(row.name)
            return True
        refusal = self._refused.get(row.name)
        if (
            refusal is not None
            and refusal.row == row.model_dump()
            and time.monotonic() - refusal.at < RETRY_SECONDS
        ):
            return False
        try:
            self._load(row, categories)
        except ServerAwayError:
            raise  # says nothing about the adapter
        except Exception as error:
            if not isinstance(error, BriefboxError):
                log.exception("adapter %s could not be loaded", row.name)
            self._refuse(row.name, row, str(error) or type(error).__name__)
            return False
        self._loaded.pop(row.name, None)
        self._loaded[row.name] = version
        self._evict(row.name)
        self._refused.pop(row.name, None)
        self._tell(row.name, None)
        log.info("adapter %s is loaded", row.name)
        return True

    def _load(self, row: Adapter, categories: tuple[Category, ...]) -> None:
        """Load and try it. An adapter can pass every check of its files and still make the model write nothing."""
        path = self.settings.data_dir / row.path
        self.engine.load_adapter(path, name=row.name, expected_sha256=row.weights_sha256)
        try:
            self.engine.brief([PROBE.model_copy(update={"categories": categories})], row.name)
        except ServerAwayError:
            self._forget(row.name)
            raise
        except Exception as error:
            self._forget(row.name)
            raise AdapterError(f"the model cannot brief a test email with it ({error})") from error

    def _evict(self, newest: str) -> None:
        others = [name for name in self._loaded if name not in (self.champion, newest)]
        # The newest takes one of the places itself, unless it is about to be the champion.
        room = MAX_RESIDENT - 1
        for name in others[: max(0, len(others) - room)]:
            self._forget(name)
            log.info("adapter %s makes room", name)

    def _forget(self, name: str) -> None:
        self.engine.drop_adapter(name)
        self._loaded.pop(name, None)

    def _refuse(self, name: str, row: Adapter | None, reason: str) -> None:
        before = self._refused.get(name)
        values = row.model_dump() if row is not None else None
        if before is not None and before.row == values and time.monotonic() - before.at < RETRY_SECONDS:
            return
        self._refused[name] = _Refusal(values, time.monotonic(), reason)
        text = f"The adapter {name} is refused; {self._instead(name, row)}. Reason: {reason}"
        if before is None or before.reason != reason:
            log.error("%s", text)
        self._tell(name, text)

    def _instead(self, name: str, row: Adapter | None) -> str:
        if row is None or row.state not in ("champion", "shadow"):
            return "mail that asks for it is briefed with the champion"
        if row.state == "shadow":
            return "it briefs nothing on trial"
        return f"{(self.champion != name and self.champion) or 'the bare base model'} goes on in its place"

    def _tell(self, name: str, problem: str | None) -> None:
        try:
            with self.database.write() as session:
                if problem is None:
                    alerts.resolve(session, _ALERT + name)
                else:
                    alerts.raise_alert(session, _ALERT + name, problem)
        except DatabaseError as error:
            log.warning("alert about adapter %s not stored: %s", name, error)
