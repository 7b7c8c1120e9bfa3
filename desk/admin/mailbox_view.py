"""What the pages of mailboxes show of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlmodel import Session

from briefbox.db import now
from briefbox.schemas import LedgerState
from briefbox.store import adapters, dead_letters, folders, mailbox_state
from briefbox.store.mailbox_state import FolderState, MailboxState
from briefbox.tables import Adapter, DeadLetter, Email, Mailbox, MailboxEvent

MAX_EVENTS, MAX_LETTERS, MAX_REASONS = 30, 50, 30
# Pollers look for new mailboxes every few seconds.
TAKEN_UP_WITHIN = timedelta(seconds=30)
STAGES = {"fetch": "receiving", "parse": "reading", "brief": "briefing"}


@dataclass(frozen=True, slots=True)
class MailboxView:
    """A mailbox in the list of all."""

    row: Mailbox
    state: MailboxState
    is_read: bool
    is_new: bool = False  # connected a moment ago: no poller can have taken it up yet

    @property
    def words(self) -> str:
        """How it stands, as a sentence."""
        said = "waiting for the poller" if self._is_awaited else self.state.words
        return f"{said[:1].upper()}{said[1:]}."

    @property
    def _is_awaited(self) -> bool:
        return self.is_new and not (
            self.is_read or self.row.paused_at or self.row.removed_at or self.row.last_error
        )

    @property
    def is_bad(self) -> bool:
        """Whether somebody should look."""
        is_missing = any(folder.missing_since for folder in self.state.folders)
        is_left = not (self.is_read or self.row.paused_at or self.row.removed_at or self._is_awaited)
        return bool(self.row.last_error) or is_missing or is_left

    @property
    def lag(self) -> str:
        """How far behind the newest mail was stored; "" where there was none yet."""
        if self.state.lag is None:
            return ""
        seconds = self.state.lag.total_seconds()
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


@dataclass(frozen=True, slots=True)
class LetterView:
    """A dead letter with its mail."""

    letter: DeadLetter
    stage: str
    email: Email | None


@dataclass(frozen=True, slots=True)
class FullView:
    """Everything about one mailbox."""

    view: MailboxView
    folders: Sequence[FolderState]
    progress: dict[str, int]
    skipped: Sequence[tuple[str, str, int]]
    letters: Sequence[LetterView]
    events: Sequence[MailboxEvent]
    adapters: Sequence[Adapter]

    @property
    def num_done(self) -> int:
        """How many of the mails that were queued are briefed."""
        queued = self.view.state.states[LedgerState.QUEUED]
        return max(0, queued - self.progress["waiting"] - self.progress["running"] - self.num_dead_briefs)

    @property
    def num_dead_briefs(self) -> int:
        """How many of them could not be."""
        return sum(letter.letter.stage == "brief" for letter in self.letters)


def view_of(session: Session, row: Mailbox) -> MailboxView:
    """One of the list."""
    state = mailbox_state.state_of(session, row)
    moment = now(session)
    return MailboxView(
        row, state, mailbox_state.is_read(row, moment), moment - row.created_at < TAKEN_UP_WITHIN
    )


def full_view(session: Session, row: Mailbox) -> FullView:
    """One page."""
    view = view_of(session, row)
    read = folders.read_folders(row)
    return FullView(
        view=view,
        folders=[folder for folder in view.state.folders if folder.folder in read],
        progress=mailbox_state.progress(session, row.id),
        skipped=mailbox_state.reasons(session, row.id, LedgerState.SKIPPED)[:MAX_REASONS],
        letters=[_letter(session, letter) for letter in dead_letters.open_of(session, row.id)[:MAX_LETTERS]],
        events=folders.events(session, row.id, limit=MAX_EVENTS),
        adapters=[a for a in adapters.all_of(session) if a.state not in adapters.UNUSABLE],
    )


def _letter(session: Session, letter: DeadLetter) -> LetterView:
    email = session.get(Email, letter.email_id) if letter.email_id else None
    return LetterView(letter, STAGES.get(letter.stage, letter.stage), email)
