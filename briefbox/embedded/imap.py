"""A small IMAP server inside this process: for the demo and for tests, with mail in memory only.

It is pymap's dict backend, wired by hand because its command line takes one user and no TLS port.
pymap's inner classes are used, so its version is pinned in pyproject.toml.
"""

import argparse
import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

from proxyprotocol.sock import SocketInfo
from pymap.backend.dict import DictBackend, Identity
from pymap.imap import IMAPServer
from pymap.user import Passwords, UserMetadata

START_SECONDS = 20.0
STOP_SECONDS = 10.0


class EmbeddedIMAP:
    """Several users on one port (with STARTTLS when there is a certificate) and, if asked for, a TLS port.

    A port of 0 takes a free one; `port` and `tls_port` tell which after start(). Users are name -> password.
    """

    def __init__(
        self,
        users: Mapping[str, str],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls_port: int | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
    ) -> None:
        if not users:
            raise ValueError("The embedded IMAP server needs at least one user.")
        if tls_port is not None and (cert_file is None or key_file is None):
            raise ValueError("A TLS port needs cert_file and key_file.")
        self.users = dict(users)
        self.host = host
        self.port = port
        self.tls_port = tls_port
        self._cert_file = cert_file
        self._key_file = key_file
        self._ready = Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: Thread | None = None

    def start(self) -> Self:
        """Return when the ports accept connections; raises RuntimeError when they cannot."""
        if self._thread is not None:
            return self
        self._ready.clear()
        self._failure = None
        self._thread = Thread(target=self._run, name="embedded-imap", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_SECONDS) or self._failure is not None:
            failure = self._failure or TimeoutError("no answer")
            self.stop()
            raise RuntimeError(
                f"The embedded IMAP server did not start on {self.host}:{self.port}: {failure}"
            ) from failure
        return self

    def stop(self) -> None:
        """End all connections and the thread; does nothing when that is done already."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stopping is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(STOP_SECONDS)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        handle = await self._server()
        connections: set[asyncio.Task[Any]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                # pymap's own way starts a task that nobody holds, so it could not be ended here.
                await handle(reader, writer, SocketInfo.get(writer, None))
            except (ConnectionError, asyncio.CancelledError, ssl.SSLError):
                pass  # The other side left, or we are stopping: nothing is lost, mail is in memory only.
            finally:
                connections.discard(task)
                writer.close()

        servers = [await asyncio.start_server(connected, self.host, self.port)]
        try:
            self.port = servers[0].sockets[0].getsockname()[1]
            if self.tls_port is not None:
                servers.append(
                    await asyncio.start_server(connected, self.host, self.tls_port, ssl=self._tls())
                )
                self.tls_port = servers[1].sockets[0].getsockname()[1]
            self._ready.set()
            await self._stopping.wait()
        finally:
            for server in servers:
                server.close()
            for task in list(connections):
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _server(self) -> Any:
        """pymap's handler of one connection, with every user made."""
        first, *others = self.users.items()
        args = argparse.Namespace(
            host=[self.host],
            port=str(self.port),
            cert=self._cert_file and str(self._cert_file),
            key=self._key_file and str(self._key_file),
            tls=self._cert_file is not None,
            proxy_protocol=None,
            inherited_sockets=None,
            passlib_cfg=None,
            debug=False,
            demo_data=False,
            demo_user=first[0],
            demo_password=first[1],
        )
        backend, config = await DictBackend.init(args)  # makes the first user
        config.apply_context()
        for name, password in others:
            hashed = await Passwords(config).hash_password(password)
            await Identity(name, backend.login, None, frozenset()).set(
                UserMetadata(config, name, password=hashed)
            )
        return IMAPServer(backend.login, config)

    def _tls(self) -> ssl.SSLContext:
        assert self._cert_file is not None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._cert_file, self._key_file)
        return context
