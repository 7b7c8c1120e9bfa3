"""The desk as a process: binds the address, says where it is, stops at SIGTERM and SIGINT within seconds."""

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from briefbox.db import Database
from briefbox.errors import SettingsError
from briefbox.settings import Settings
from desk.app import create_app
from desk.tools import Tools

log = logging.getLogger(__name__)

# Open pages hold their event stream for ever; they are told to come back, and then the server goes.
STOP_SECONDS = 3


class DeskServer(uvicorn.Server):
    """uvicorn with three differences: the socket is bound first (so that a taken port is one sentence and
    port 0 is known), live streams end at once when it stops, and a signal ends it with exit status 0."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        tools: Tools = Tools(),
        *,
        ready: Callable[[str], None] | None = None,
    ) -> None:
        """Bind the address. `ready` is called with the desk's address once it answers. Raises SettingsError."""
        self._socket = _bind(settings)
        self.port: int = self._socket.getsockname()[1]
        self._ready = ready
        app = create_app(database, settings, tools)
        self._live = app.state.desk.live
        self._told = settings.desk_url or _address(settings.desk_host, self.port)
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )

    @property
    def address(self) -> str:
        """Where browsers find it, without a slash at the end."""
        return self._told.rstrip("/")

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        super().run(sockets=sockets or [self._socket])

    def stop(self) -> None:
        """Ask it to stop; may be called from another thread."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does, then say where we are."""
        await super().startup(sockets=sockets)
        log.info("The desk answers at %s", self.address)
        if self._ready is not None:
            self._ready(self.address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the live streams first: uvicorn would wait for them."""
        self._live.close()
        await super().shutdown(sockets=sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Like uvicorn's, but the signal is not raised again at the end: a stop that was asked for is no failure."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(
    database: Database,
    settings: Settings,
    tools: Tools = Tools(),
    *,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Run the desk until SIGTERM or SIGINT. `ready` gets its address, with the real port where 0 was asked for.

    Raises SettingsError when the address cannot be bound.
    """
    DeskServer(database, settings, tools, ready=ready).run()


def _bind(settings: Settings) -> socket.socket:
    host, port = settings.desk_host, settings.desk_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"The desk cannot listen on {host}:{port} ({reason}). Set BRIEFBOX_DESK_HOST to an address of this machine and BRIEFBOX_DESK_PORT to a free port (0 takes any)."
        ) from error


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
