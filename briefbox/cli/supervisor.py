"""`briefbox up`: every process on one machine, restarted when it dies, stopped together.

Children run in process groups of their own, so that Ctrl-C reaches only the supervisor, which then stops
them in order; and they are told by the kernel when the supervisor itself is killed, so that none is left behind.
"""

import ctypes
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from briefbox.embedded import valkey
from briefbox.errors import BriefboxError, QueueError
from briefbox.settings import Settings

log = logging.getLogger(__name__)

STOP_SECONDS = 20.0
FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0
# A child that has run this long starts again at once, without the back-off of earlier deaths.
HEALTHY_AFTER_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Child:
    """One supervised process."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restarts: int = 0
    backoff: float = FIRST_BACKOFF_SECONDS
    not_before: float = 0.0
    log_file: IO[bytes] | None = field(default=None, repr=False)


class Supervisor:
    """Starts the processes in order, restarts what dies, stops all of them. Use from the main thread."""

    def __init__(
        self, settings: Settings, *, environment: Mapping[str, str] | None = None, log_dir: Path | None = None
    ) -> None:
        """`environment` is added to each child's; with `log_dir` their output goes to a file each."""
        self.settings = settings
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self.log_dir = log_dir
        self.children = [Child(name, _briefbox(*words)) for name, *words in _PROCESSES]
        if settings.embedded_redis:
            self.children.insert(0, Child("valkey", valkey.command(settings)))
        self._lock: IO[bytes] | None = None

    def start(self) -> None:
        """Start everything. Raises BriefboxError when another `briefbox up` owns the data folder or Valkey does not start."""
        self._lock = _lock(self.settings.ensure_data_dir())
        for child in self.children:
            self._start(child)
            if child.name == "valkey":
                self._await_valkey(child)

    def watch(self) -> None:
        """Restart children that have died. Call it every moment or so."""
        moment = time.monotonic()
        for child in self.children:
            if child.process is None:
                if moment >= child.not_before:
                    child.restarts += 1
                    self._start(child)
                continue
            code = child.process.poll()
            if code is None:
                continue
            if moment - child.started > HEALTHY_AFTER_SECONDS:
                child.backoff = FIRST_BACKOFF_SECONDS
            log.warning("%s %s; it is started again in %.1f s", child.name, _ending(code), child.backoff)
            child.process, child.not_before = None, moment + child.backoff
            child.backoff = min(MAX_BACKOFF_SECONDS, child.backoff * 2)

    def stop(self) -> None:
        """End every child: politely first, Valkey last, by force after STOP_SECONDS."""
        for group in (
            (self.children[::-1][:-1], self.children[:1])
            if self.settings.embedded_redis
            else (self.children,)
        ):
            running = [c for c in group if c.process is not None and c.process.poll() is None]
            for child in running:
                assert child.process is not None
                child.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            for child in running:
                assert child.process is not None
                try:
                    child.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    log.warning(
                        "%s did not stop in %.0f s and is killed; its work is offered again later",
                        child.name,
                        STOP_SECONDS,
                    )
                    child.process.kill()
                    child.process.wait()
        for child in self.children:
            if child.log_file is not None:
                child.log_file.close()
        if self._lock is not None:
            self._lock.close()

    def _start(self, child: Child) -> None:
        output: IO[bytes] | None = None
        if self.log_dir is not None:
            self.log_dir.mkdir(parents=True, exist_ok=True)
            if child.log_file is None:
                child.log_file = (self.log_dir / f"{child.name}.log").open("ab")
            output = child.log_file
        child.process = subprocess.Popen(
            child.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        child.started = time.monotonic()
        if child.restarts:
            log.info("%s started again (%d)", child.name, child.restarts)

    def _await_valkey(self, child: Child) -> None:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if valkey.answers(self.settings):
                return
            if child.process is not None and child.process.poll() is not None:
                break
            time.sleep(0.02)
        raise QueueError(
            f"The embedded Valkey did not start. Its log is {self.settings.data_dir / 'valkey' / 'valkey.log'}; or set BRIEFBOX_REDIS_URL to a server of your own."
        )


# Name, then the words of the command. Order of start; the reverse is the order of stopping.
_PROCESSES: tuple[tuple[str, ...], ...] = (
    ("desk", "desk", "--no-set-up-link"),  # `up` prints it itself
    ("worker", "worker"),
    ("poll", "poll"),
    ("beat", "beat"),
    ("training", "worker", "--queue", "training"),
)


def _briefbox(*words: str) -> list[str]:
    return [sys.executable, "-m", "briefbox", *words]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _lock(data_dir: Path) -> IO[bytes]:
    file = (data_dir / "up.lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise BriefboxError(
            f"Another briefbox is running on the data folder {data_dir}. Stop it first, or set BRIEFBOX_DATA_DIR to another folder."
        ) from error
    return file


def _ending(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
