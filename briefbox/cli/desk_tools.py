"""Hands the desk what it may not import: readers of mail and of mailboxes."""

from briefbox.db import Database
from briefbox.settings import Settings
from desk.tools import Tools


def desk_tools(database: Database, settings: Settings) -> Tools:
    """The tools of a desk on this database."""
    from ingest.for_desk import DeskMailboxes

    return Tools(mailboxes=DeskMailboxes(database, settings))
