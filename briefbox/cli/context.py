"""What nearly every command needs first."""

import getpass
from pathlib import Path

from briefbox.cli.output import set_up_logging
from briefbox.db import Database, open_database
from briefbox.settings import Settings, get_settings


def settings_for(process: str) -> Settings:
    """Settings read and logging set up under the name of this process. Raises SettingsError."""
    settings = get_settings()
    set_up_logging(settings.log_level, process)
    return settings


def database_for(process: str = "cli") -> tuple[Database, Settings]:
    """The checked database and the settings. Raises SettingsError, DatabaseError."""
    settings = settings_for(process)
    return open_database(settings), settings


def actor() -> str:
    """Who the audit log names for a command."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"


def file_text(path: Path) -> str:
    """A secret's file, without the newline at its end."""
    return path.read_text(encoding="utf-8").rstrip("\r\n")
