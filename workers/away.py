"""A model server that is away: no email is to blame, so none is counted, and none is tried before the next sweep.

a request fails as if the server were away -> does the server list its models and brief a test email?
  no:  it is away; what was claimed is given back uncounted
  yes: this email makes it fail, and is treated like any other that fails
"""

import logging

from sqlmodel import Session

from briefbox.db import Database
from briefbox.errors import ModelError
from briefbox.store import alerts
from models.engine import Engine
from workers.residents import PROBE

log = logging.getLogger(__name__)

AWAY_ALERT = "model server away"


class ModelServer:
    """Whether the server behind an engine can be used. Local engines have none and never raise ServerAwayError."""

    def __init__(self, database: Database, engine: Engine) -> None:
        """Nothing is asked before something fails."""
        self.database, self.engine = database, engine
        self.paused = False
        self._away: bool | None = None  # not known before the first batch

    def is_away(self, adapter: str) -> bool:
        """Whether it fails for a harmless email, too. Takes as long as an email."""
        try:
            self.engine.warm_up()
            self.engine.brief([PROBE], adapter)
        except ModelError:
            return True
        return False

    def gone(self, error: ModelError) -> None:
        """Pause, and tell admins."""
        self.paused = True
        if not self._away:
            log.warning("emails wait until the model server is back: %s", error)
        self._away = True
        with self.database.write() as session:
            alerts.raise_alert(session, AWAY_ALERT, f"Emails wait, and none is counted as failed. {error}")

    def look_again(self) -> None:
        """End the pause when the server answers. Raises ModelError while it does not."""
        if self.paused:
            self.engine.warm_up()
            self.paused = False

    def back(self, session: Session) -> None:
        """A batch went well."""
        if self._away:
            log.info("the model server is back")
        if self._away is not False:
            # Also at the first batch: the process before this one may have ended while it was away.
            alerts.resolve(session, AWAY_ALERT)
        self._away = False

    def __str__(self) -> str:
        """For people; empty while nothing is known to be wrong."""
        return "; the model server is away" if self._away else ""
