"""Hands the desk what it may not import: readers of mail and of mailboxes."""

from briefbox.db import Database
from briefbox.settings import Settings
from desk.tools import Tools
from ingest.for_desk import DeskMailboxes
from ingest.reader import StoredEmails


def desk_tools(database: Database, settings: Settings) -> Tools:
    """The tools of a desk on this database."""
    return Tools(reader=StoredEmails(database, settings), mailboxes=DeskMailboxes(database, settings))
