"""Parsing in a process of its own, which a hostile mail may kill, hang or fill without harm to the poller.

The child (`python -m ingest.parser_process`) has no secrets in its environment, a limit on its memory, and a limit on
the processor time of each mail. The bytes that are kept, and the hash that they are known by, never come from it. When it ends in the middle of a batch, what it has not answered is given to a new one mail by mail,
and the mail on which that one ends is said to be unreadable. It ends when its parent does: its input ends.

Over the pipe go lengths and bytes, and what comes back is JSON that is checked again here.
"""

import atexit
import fcntl
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from briefbox import language
from briefbox.errors import BriefboxError, ParseError
from briefbox.schemas import LeftOnServer, ParsedEmail
from ingest import parse

# Far above what the largest mail that is read needs (25 MB takes about 300 MB).
MAX_MEMORY = 2 * 2**30
# The slowest of our hostile mails takes a second.
CPU_SECONDS = 20.0
# Of one mail by the clock: a machine that is busy with other things is given time.
WALL_SECONDS = 90.0
START_SECONDS = 120.0

_REQUEST = Struct("<II")  # length of the own addresses, number of mails
_MAIL = Struct("<II")  # length of the bytes, and of the JSON that says what of the mail stayed on the server
_ANSWER = Struct(
    "<?I"
)  # whether it was parsed, and the length of the JSON, or of the sentence that says why not
_READY = b"ready\n"
_PIPE_BYTES = 1 << 20
_FLUSH_BYTES, _FLUSH_SECONDS = 100_000, 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one mail: `parsed` and the same as JSON, or the `problem`."""

    parsed: ParsedEmail | None = None
    json: str = ""
    problem: str = ""


class ParserProcess:
    """Parses mail in a child process, batch after batch; may be used from many threads."""

    def __init__(
        self,
        module: str = __name__ if __name__ != "__main__" else "ingest.parser_process",
        *,
        memory: int = MAX_MEMORY,
        cpu_seconds: float = CPU_SECONDS,
        wall_seconds: float = WALL_SECONDS,
    ) -> None:
        """Nothing is started yet. `module` is what the child runs; limits are in bytes, and in seconds for each mail."""
        self._command = [sys.executable, "-P", "-m", module, str(memory), str(cpu_seconds)]
        self._wall_seconds = wall_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parser")
        self._child: _Child | None = None

    def start(self) -> None:
        """Start the child, if there is none, without waiting for it: the first mail is then parsed sooner."""
        if self._child is None:
            self._thread.submit(self._running)

    def submit(
        self,
        raws: Sequence[bytes],
        own_addresses: Set[str] = frozenset(),
        lefts: Sequence[LeftOnServer | None] = (),
    ) -> Future[list[Outcome]]:
        """Parse these in the background, one outcome for each; the result raises BriefboxError if no child starts.

        `lefts`, one for each mail where given, say what of it stayed on the server.
        """
        said = [left.model_dump_json().encode() if left else b"" for left in lefts] or [b""] * len(raws)
        return self._thread.submit(self._parse, list(zip(raws, said, strict=True)), own_addresses)

    def parse(self, raw: bytes, own_addresses: Set[str] = frozenset()) -> ParsedEmail:
        """As parse.parse_email. Raises ParseError, and BriefboxError if no child starts."""
        [outcome] = self.submit([raw], own_addresses).result()
        if outcome.parsed is None:
            raise ParseError(outcome.problem)
        return outcome.parsed

    def close(self) -> None:
        """End the child. What is submitted is still answered."""
        self._thread.shutdown(wait=True)
        if self._child is not None:
            self._child.end()
            self._child = None

    def _running(self) -> "_Child":
        if self._child is not None and self._child.has_ended():
            self._child.end()  # while it had nothing to do: no mail is to blame
            self._child = None
        if self._child is None:
            self._child = _Child(self._command)
        return self._child

    def _parse(self, raws: list[tuple[bytes, bytes]], own_addresses: Set[str]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        one_by_one = False
        while len(outcomes) < len(raws):
            left = raws[len(outcomes) :]
            wanted = left[:1] if one_by_one else left
            child = self._running()
            answers = child.ask(wanted, own_addresses, self._wall_seconds)
            outcomes += answers
            if len(answers) == len(wanted):
                continue
            said, self._child = child.end(), None
            if one_by_one:
                outcomes.append(Outcome(problem=f"The email cannot be parsed: {said}."))
            # A mail is to blame only if a process ended on it alone that had nothing else to end of.
            one_by_one = not one_by_one
        return outcomes


@lru_cache(maxsize=1)
def shared() -> ParserProcess:
    """The one of this process."""
    parser = ParserProcess()
    atexit.register(parser.close)
    return parser


class _Child:
    """A running child and the pipes to it."""

    def __init__(self, command: Sequence[str]) -> None:
        """Raises BriefboxError if it does not come up."""
        self._why = ""
        self._buffer = bytearray()
        root = str(Path(parse.__file__).parents[1])
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ", "HOME") if name in os.environ}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**kept, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is the parent's; it ends when its input does
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._stdin, self._stdout):
            os.set_blocking(pipe, False)
            _widen(pipe)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        deadline = time.monotonic() + START_SECONDS
        while len(self._buffer) < len(_READY):
            if not self._read(deadline):
                raise BriefboxError(
                    f"The process that parses mail did not start ({self.end()}); expected `{' '.join(command[:4])}` to run. Check the installation and the memory that this process may use."
                )
        del self._buffer[: len(_READY)]

    def ask(
        self, raws: Sequence[tuple[bytes, bytes]], own_addresses: Set[str], seconds: float
    ) -> list[Outcome]:
        """The outcomes in their order; fewer than mails if it ended or was silent for so long (in seconds)."""
        own = json.dumps(sorted(own_addresses)).encode()
        parts = [_REQUEST.pack(len(own), len(raws)), own]
        for raw, left in raws:
            parts += (_MAIL.pack(len(raw), len(left)), raw, left)
        unsent = memoryview(b"".join(parts))
        self._selector.register(self._stdin, selectors.EVENT_WRITE)
        outcomes: list[Outcome] = []
        deadline = time.monotonic() + seconds
        while len(outcomes) < len(raws):
            if unsent and not (unsent := self._write(unsent)):
                self._selector.unregister(self._stdin)
            if not self._read(deadline):
                return outcomes
            while (outcome := self._taken()) is not None:
                outcomes.append(outcome)
                deadline = time.monotonic() + seconds
        return outcomes

    def _write(self, unsent: memoryview) -> memoryview:
        try:
            return unsent[os.write(self._stdin, unsent) :]
        except BlockingIOError:
            return unsent
        except BrokenPipeError:  # it has ended, which reading tells
            return unsent[len(unsent) :]

    def _read(self, deadline: float) -> bool:
        """Wait until something can be read or written; False when it has ended or the time is up."""
        ready = self._selector.select(max(0.0, deadline - time.monotonic()))
        if not ready:
            self._why = "it took too long"
            return False
        if any(key.fd == self._stdout for key, _ in ready):
            data = os.read(self._stdout, 1 << 20)
            self._buffer += data
            return bool(data)
        return True

    def _taken(self) -> Outcome | None:
        """The next whole answer off the buffer."""
        if len(self._buffer) < _ANSWER.size:
            return None
        is_parsed, length = _ANSWER.unpack_from(self._buffer)
        end = _ANSWER.size + length
        if len(self._buffer) < end:
            return None
        text = bytes(self._buffer[_ANSWER.size : end])
        del self._buffer[:end]
        if not is_parsed:
            return Outcome(problem=text.decode("utf-8", "replace"))
        try:
            return Outcome(ParsedEmail.model_validate_json(text), text.decode())
        except ValueError as error:
            return Outcome(problem=f"The email cannot be parsed: what came of it is none: {str(error)[:200]}")

    def has_ended(self) -> bool:
        """Whether it ended by itself."""
        return self._process.poll() is not None

    def end(self) -> str:
        """Take it down, and say in words how it ended."""
        self._selector.close()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            status = self._process.wait(0.0 if self._why else 2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if self._why:
            return self._why
        if status == -signal.SIGPROF:
            return "it took too much processor time"
        name = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        return f"it ended the process that parses mail ({name})"


def _widen(pipe: int) -> None:
    """Let a pipe hold as much as the system allows: each time that it is full or empty one side waits for the other."""
    with suppress(AttributeError, OSError):  # Linux only, and up to a limit for all pipes of a user
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


# --- in the child


def main() -> None:
    """Answer requests until the input ends. Arguments: the memory in bytes, the processor seconds for each mail."""
    memory, cpu_seconds = int(sys.argv[1]), float(sys.argv[2])
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what any library prints must not get among the answers
    with suppress(ValueError, OSError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    language.detect("The language model is loaded by the first text.")
    sink.write(_READY)
    sink.flush()
    while len(head := source.read(_REQUEST.size)) == _REQUEST.size:
        num_own, num_mails = _REQUEST.unpack(head)
        own = frozenset(json.loads(source.read(num_own)))
        _answer(source, sink, own, num_mails, cpu_seconds)


def _answer(
    source: BinaryIO, sink: BinaryIO, own: frozenset[str], num_mails: int, cpu_seconds: float
) -> None:
    waiting, num_bytes, since = [], 0, time.monotonic()
    for number in range(num_mails):
        num_raw, num_left = _MAIL.unpack(source.read(_MAIL.size))
        raw, said = source.read(num_raw), source.read(num_left)
        left = LeftOnServer.model_validate_json(said) if said else None
        # SIGPROF ends the process; nothing of Python's has to run for it.
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        answer = _read_mail(raw, left, own)
        signal.setitimer(signal.ITIMER_PROF, 0)
        waiting.append(answer)
        num_bytes += len(answer)
        # Many answers in one piece: each piece wakes the parent, which has other things to do.
        is_due = num_bytes > _FLUSH_BYTES or time.monotonic() - since > _FLUSH_SECONDS
        if is_due or number == num_mails - 1:
            sink.write(b"".join(waiting))
            sink.flush()
            waiting, num_bytes, since = [], 0, time.monotonic()


def _read_mail(raw: bytes, left: LeftOnServer | None, own: frozenset[str]) -> bytes:
    try:
        said = parse.parse_email(raw, left, own_addresses=own).to_store().encode()
    except ParseError as error:
        problem = str(error)
    except (Exception, MemoryError) as error:
        problem = f"The email cannot be parsed: {type(error).__name__}: {str(error)[:200]}"
    else:
        return _ANSWER.pack(True, len(said)) + said  # noqa: FBT003 - a field of the answer
    said = problem.encode("utf-8", "replace")
    return _ANSWER.pack(False, len(said)) + said  # noqa: FBT003 - the same


if __name__ == "__main__":
    main()
