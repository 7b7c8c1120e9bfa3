"""A mailbox in memory, with scripted failures, for tests and dry runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from threading import RLock

from briefbox.errors import FolderMissingError, MailboxError
from briefbox.schemas import FetchedEmail, Fingerprint, FolderStatus
from ingest.mailbox import GONE, Openable
from ingest.parse import message_id_of
from ingest.partial import fetch_in_part


@dataclass(slots=True)
class _FakeFolder:
    uidvalidity: int
    uidnext: int = 1
    emails: dict[int, FetchedEmail] = field(default_factory=dict)


class FakeMailbox(Openable):
    """A mailbox in memory, with scripted failures, for tests and dry runs.

    It plays server and connection at once. The script's side (append, remove, renumber, fail_next, ...)
    is not part of `Mailbox`; `fingerprint()` before and after proves that the reader changed nothing.
    """

    def __init__(self, folders: Sequence[str] = ("INBOX",), *, uidvalidity: int = 1) -> None:
        self._folders = {name: _FakeFolder(uidvalidity) for name in folders}
        self._selected: _FakeFolder | None = None
        self._failures: list[tuple[str, Exception]] = []
        self._lock = RLock()
        self.is_open = False
        self.calls: Counter[str] = Counter()
        self.fetched: Counter[int] = Counter()  # how often each UID was asked for
        self.drop_on_fetch: set[int] = set()  # listed, but gone when fetched
        self.bad_on_fetch: dict[int, str] = {}  # listed, but not given for this reason

    # --- the script's side

    def append(
        self,
        raw: bytes,
        *,
        folder: str = "INBOX",
        uid: int | None = None,
        internal_date: datetime | None = None,
    ) -> int:
        """Deliver an email; returns its UID."""
        with self._lock:
            target = self._folders[folder]
            uid = target.uidnext if uid is None else uid
            date = internal_date or datetime.now(UTC).replace(microsecond=0)
            target.emails[uid] = FetchedEmail(uid, raw=raw, size=len(raw), internal_date=date)
            target.uidnext = max(target.uidnext, uid + 1)
            return uid

    def remove(self, uid: int, *, folder: str = "INBOX") -> None:
        """Somebody else deletes an email."""
        with self._lock:
            del self._folders[folder].emails[uid]

    def add_folder(self, name: str, *, uidvalidity: int = 1) -> None:
        """Somebody makes a folder."""
        with self._lock:
            self._folders[name] = _FakeFolder(uidvalidity)

    def remove_folder(self, name: str) -> None:
        """Somebody deletes a folder."""
        with self._lock:
            del self._folders[name]

    def renumber(self, uidvalidity: int, *, folder: str = "INBOX") -> None:
        """The server rebuilds a folder: the same emails under new UIDs and a new UIDVALIDITY."""
        with self._lock:
            old = self._folders[folder].emails
            self._folders[folder] = _FakeFolder(uidvalidity)
            for email in old.values():
                if email.raw is not None:
                    self.append(email.raw, folder=folder, internal_date=email.internal_date)

    def fail_next(self, error: Exception, *, on: str = "fetch", times: int = 1) -> None:
        """Let the next `times` calls of the method named `on` raise this error."""
        self._failures += [(on, error)] * times

    def fingerprint(self) -> str:
        """A hash over everything the mailbox holds."""
        with self._lock:
            held = [
                (name, f.uidvalidity, f.uidnext, sorted(f.emails.items(), key=lambda item: item[0]))
                for name, f in sorted(self._folders.items())
            ]
        return sha256(repr(held).encode()).hexdigest()

    # --- Mailbox

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset({"IMAP4REV1", "IDLE"})

    def open(self) -> None:
        self._called("open")
        self.is_open = True

    def close(self) -> None:
        self.calls["close"] += 1
        self.is_open = False
        self._selected = None

    def folders(self) -> list[str]:
        self._called("folders")
        return list(self._folders)

    def open_folder(self, name: str) -> FolderStatus:
        self._called("open_folder")
        with self._lock:
            if name not in self._folders:
                raise FolderMissingError(
                    f"The mailbox has no folder {name!r}; it has {', '.join(map(repr, self._folders)) or 'none'}."
                )
            folder = self._selected = self._folders[name]
            return FolderStatus(folder.uidvalidity, exists=len(folder.emails), uidnext=folder.uidnext)

    def uids_above(self, uid: int, *, up_to: int | None = None) -> list[int]:
        self._called("uids_above")
        with self._lock:
            return sorted(u for u in self._open_emails() if u > uid and (up_to is None or u <= up_to))

    def sizes(self, uids: Sequence[int]) -> dict[int, int]:
        self._called("sizes")
        with self._lock:
            emails = self._open_emails()
            return {uid: emails[uid].size or 0 for uid in uids if uid in emails}

    def fetch(self, uids: Sequence[int]) -> list[FetchedEmail]:
        self._called("fetch")
        self.fetched.update(uids)
        with self._lock:
            emails = self._open_emails()
            return [self._one(emails, uid) for uid in uids]

    def fetch_partial(self, uid: int) -> FetchedEmail:
        """As from a server whose structures cannot be used."""
        self._called("fetch_partial")
        self.fetched[uid] += 1
        with self._lock:
            email = self._one(self._open_emails(), uid)
        found = fetch_in_part(lambda items: {b"BODY[]": email.raw} if "BODY.PEEK[]<" in items[0] else {})
        return replace(email, raw=found[0], left=found[1]) if found else email

    def uids_since(self, moment: datetime) -> list[int]:
        self._called("uids_since")
        with self._lock:
            emails = self._open_emails().values()
            return sorted(
                e.uid for e in emails if e.internal_date and e.internal_date.date() >= moment.date()
            )

    def fingerprints(self, uids: Sequence[int]) -> dict[int, Fingerprint]:
        self._called("fingerprints")
        with self._lock:
            emails = self._open_emails()
            return {
                uid: Fingerprint(
                    message_id_of(emails[uid].raw or b""), emails[uid].size, emails[uid].internal_date
                )
                for uid in uids
                if uid in emails
            }

    def uidvalidity_of(self, folder: str) -> int | None:
        self._called("uidvalidity_of")
        return self._folders[folder].uidvalidity if folder in self._folders else None

    def start_idle(self) -> bool:
        self._called("start_idle")
        return False

    def heard(self) -> bool:
        return True

    def stop_idle(self) -> None:
        self._called("stop_idle")

    def fileno(self) -> int:
        return -1

    def abort(self) -> None:
        self.is_open = False

    def _one(self, emails: dict[int, FetchedEmail], uid: int) -> FetchedEmail:
        if uid in self.bad_on_fetch:
            return FetchedEmail(uid, raw=None, problem=self.bad_on_fetch[uid])
        if uid in self.drop_on_fetch or uid not in emails:
            return FetchedEmail(uid, raw=None, problem=GONE)
        return emails[uid]

    def _open_emails(self) -> dict[int, FetchedEmail]:
        if self._selected is None:
            raise MailboxError("No folder is open; expected open_folder() first.")
        return self._selected.emails

    def _called(self, method: str) -> None:
        self.calls[method] += 1
        for scripted in self._failures:
            if scripted[0] == method:
                self._failures.remove(scripted)
                raise scripted[1]
        if method != "open" and not self.is_open:
            raise MailboxError("The mailbox is not open; expected open() first.")
