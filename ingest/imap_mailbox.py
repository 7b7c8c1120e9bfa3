"""Folders and emails of an IMAP server, read and never changed: folders are opened with EXAMINE, mail comes by BODY.PEEK[]."""

import imaplib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from imapclient import IMAPClient, imap_utf7
from imapclient.exceptions import IMAPClientAbortError, IMAPClientError

from briefbox.errors import FolderMissingError, MailboxError, MailboxProtocolError
from briefbox.schemas import FetchedEmail, Fingerprint, FolderStatus
from ingest.answers import fetch_answers
from ingest.esearch import ESearchError, search_in_ranges
from ingest.imap_connection import PARSER_ERRORS, IMAPConnection, passes, words_of
from ingest.mailbox import GONE, Account
from ingest.parse import message_id_of
from ingest.partial import fetch_in_part
from ingest.pieces import read_part

# imaplib refuses lines over 1,000,000 bytes, and the answer to UID SEARCH is one line: about 90,000 UIDs.
# The limit is a module global (an attribute of the connection has no effect), so it is raised for the
# process; it stays finite, so that a hostile server cannot fill the memory with one endless line.
imaplib._MAXLINE = max(imaplib._MAXLINE, 10_000_000)  # type: ignore[attr-defined]

# A folder with more emails is searched in windows of UIDs, so that no answer comes near that limit.
SEARCH_WINDOW = 50_000
# Servers limit a command line (8,000 bytes is what RFC 7162 asks for): 500 UIDs of 10 digits fit.
UIDS_PER_COMMAND = 500
_ID_HEADER = "BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]"


class IMAPMailbox(IMAPConnection):
    """A mailbox on an IMAP server, as the protocol Mailbox has it."""

    def __init__(self, account: Account) -> None:
        """Nothing is connected yet."""
        super().__init__(account)
        self._counts_in_ranges = True
        self._wire_names: dict[str, str] = {}
        self._status = FolderStatus(uidvalidity=0, exists=0)

    def open(self) -> None:
        if self._client is None:
            self._counts_in_ranges = True
        super().open()

    # --- folders

    def folders(self) -> list[str]:
        return [name for name, _ in self.listed()]

    def listed(self) -> list[tuple[str, frozenset[str]]]:
        """The folders with what the server says of each in lower case, such as \\sent (RFC 6154); INBOX first."""
        with self.plain_errors("was asked for its folders") as client:
            # Names come as bytes: IMAPClient's own decoding raises on a malformed one and loses all others.
            client.folder_encode = False
            try:
                listed = client.list_folders()
            finally:
                client.folder_encode = True
        found: dict[str, frozenset[str]] = {}
        for given, _, wire in listed:
            flags = frozenset(words_of(flag).lower() for flag in given)
            if wire is None or {"\\noselect", "\\nonexistent"} & flags:
                continue
            name = _folder_name(wire)
            if isinstance(wire, bytes) and wire.isascii():
                self._wire_names[name] = wire.decode("ascii")
            found[name] = flags
        return sorted(found.items(), key=lambda item: (item[0].upper() != "INBOX", item[0]))

    def open_folder(self, name: str) -> FolderStatus:
        if any(ch in name for ch in "\r\n\0"):
            raise FolderMissingError(f"{name!r} cannot be a folder's name: it holds a line break.")
        wire = self._wire_names.get(name, imap_utf7.encode(name).decode("ascii"))
        with self.plain_errors(f"was asked to open the folder {name!r}") as client:
            client.folder_encode = False
            try:
                answer = client.select_folder(wire, readonly=True)
            except IMAPClientAbortError:
                raise
            except IMAPClientError as error:
                raise self._folder_error(name, words_of(error)) from error
            finally:
                client.folder_encode = True
        uidvalidity = answer.get(b"UIDVALIDITY")
        if uidvalidity is None:
            raise MailboxProtocolError(
                f"{self.where} opened the folder {name!r} without a UIDVALIDITY, so its emails have no lasting identity; expected an IMAP4rev1 server."
            )
        self._status = FolderStatus(
            uidvalidity=uidvalidity,
            exists=answer.get(b"EXISTS", 0),
            uidnext=answer.get(b"UIDNEXT") or None,
            highest_modseq=answer.get(b"HIGHESTMODSEQ"),
            flags=tuple(words_of(flag) for flag in answer.get(b"FLAGS", ())),
        )
        return self._status

    def _folder_error(self, name: str, said: str) -> MailboxError:
        """Missing, or only refused now? The list of folders tells."""
        existing = self.folders()
        if name in existing or name.upper() == "INBOX":
            return MailboxError(f"{self.where} refused to open the folder {name!r}: {said}.")
        return FolderMissingError(
            f"{self.where} has no folder {name!r} ({said}); it has {', '.join(map(repr, existing)) or 'none'}: choose one with `briefbox mailbox add ... --folder NAME`."
        )

    # --- emails

    def uids_above(self, uid: int, *, up_to: int | None = None) -> list[int]:
        found: set[int] = set()
        for low, high in self._windows(uid + 1, up_to):
            found.update(self._search(f"{low}:{high or '*'}"))
        # `n:*` names at least the last email, even when its UID is below n (RFC 3501, 6.4.8).
        return sorted(u for u in found if u > uid and (up_to is None or u <= up_to))

    def _windows(self, low: int, up_to: int | None) -> Iterator[tuple[int, int | None]]:
        """Ranges of UIDs, the last one open when `up_to` is; one for a folder of ordinary size."""
        uidnext = self._status.uidnext
        top = up_to if up_to is not None else uidnext - 1 if uidnext else 0
        if self._status.exists > SEARCH_WINDOW:
            # At most 1,000 commands, however thinly the UIDs are spread.
            width = max(SEARCH_WINDOW, (top - low) // 1000)
            while top - low >= width:
                yield low, low + width - 1
                low += width
        # A range whose ends are swapped means the same to a server, so an empty one is not asked for.
        if up_to is None or low <= up_to:
            yield low, up_to

    def _search(self, uid_set: str) -> list[int]:
        with self.plain_errors("was asked for its list of emails") as client:
            if self._counts_in_ranges and client.has_capability("ESEARCH"):
                try:
                    return search_in_ranges(client, uid_set)
                except (ESearchError, IMAPClientError) as error:
                    if isinstance(error, IMAPClientAbortError):
                        raise
                    self._counts_in_ranges = False  # it says that it can, and cannot
            return [int(uid) for uid in client.search(["UID", uid_set])]

    def uids_since(self, moment: datetime) -> list[int]:
        day = moment.date()
        with self.plain_errors("was asked for its list of emails") as client:
            return sorted(int(uid) for uid in client.search(["SINCE", day]))

    def uidvalidity_of(self, folder: str) -> int | None:
        wire = self._wire_names.get(folder, imap_utf7.encode(folder).decode("ascii"))
        with self.plain_errors(f"was asked about the folder {folder!r}") as client:
            client.folder_encode = False
            try:
                found = client.folder_status(wire, ["UIDVALIDITY"]).get(b"UIDVALIDITY")
            finally:
                client.folder_encode = True
        return found if isinstance(found, int) else None

    def fingerprints(self, uids: Sequence[int]) -> dict[int, Fingerprint]:
        found = {}
        for part in _chunks(uids):
            answers, _ = self._ask(part, [_ID_HEADER, "RFC822.SIZE", "INTERNALDATE"])
            for uid, answer in answers.items():
                size = answer.get(b"RFC822.SIZE")
                header = next((v for k, v in answer.items() if k.startswith(b"BODY[HEADER.FIELDS")), None)
                found[uid] = Fingerprint(
                    message_id_of(header) if isinstance(header, bytes) else "",
                    size if isinstance(size, int) else None,
                    _utc(answer.get(b"INTERNALDATE")),
                )
        return found

    def sizes(self, uids: Sequence[int]) -> dict[int, int]:
        found = {}
        for part in _chunks(uids):
            answers, _ = self._ask(part, ["RFC822.SIZE"])
            for uid, answer in answers.items():
                if isinstance(size := answer.get(b"RFC822.SIZE"), int):
                    found[uid] = size
        return found

    def fetch(self, uids: Sequence[int]) -> list[FetchedEmail]:
        found: dict[int, FetchedEmail] = {}
        for part in _chunks(uids):
            found |= self._bodies(part)
            # Some servers omit an email once (Exchange Online does), so a gap is asked for again.
            if missing := [uid for uid in part if uid not in found]:
                found |= self._bodies(missing)
            if missing := [uid for uid in missing if uid not in found]:
                found |= self._withheld(missing)
        return [found[uid] for uid in uids]

    def fetch_partial(self, uid: int) -> FetchedEmail:
        facts = self._of_one(uid, ["RFC822.SIZE", "INTERNALDATE"])
        found = fetch_in_part(lambda items: self._of_one(uid, items))
        if found is None:
            return self._withheld([uid])[uid]
        size = facts.get(b"RFC822.SIZE")
        return FetchedEmail(
            uid,
            raw=found[0],
            size=size if isinstance(size, int) else None,
            internal_date=_utc(facts.get(b"INTERNALDATE")),
            left=found[1],
        )

    def part(self, uid: int, section: str) -> Iterator[bytes]:
        """The decoded bytes of one part, in pieces of about a megabyte, as it is in Attachment.section."""
        size = self.sizes([uid]).get(uid, 0)
        return read_part(lambda items: self._of_one(uid, items), section, most=size + size // 10 + 1_000_000)

    def _of_one(self, uid: int, items: list[str]) -> dict[bytes, Any]:
        """These items of one email; {} when the server refuses them or its answer cannot be understood."""
        try:
            return self._ask([uid], items)[0].get(uid, {})
        except RecursionError:  # IMAPClient's parser, at a structure nested a thousand deep
            return {}

    def _bodies(self, uids: list[int]) -> dict[int, FetchedEmail]:
        answers, refused = self._ask(uids, ["BODY.PEEK[]", "RFC822.SIZE", "INTERNALDATE"])
        found = {
            uid: FetchedEmail(uid, raw=None, problem=f"{self.where} does not give this email: {why}.")
            for uid, why in refused.items()
        }
        for uid, answer in answers.items():
            raw, size = answer.get(b"BODY[]"), answer.get(b"RFC822.SIZE")
            if isinstance(raw, bytes) and raw:
                found[uid] = FetchedEmail(
                    uid,
                    raw=raw,
                    size=size if isinstance(size, int) else None,
                    internal_date=_utc(answer.get(b"INTERNALDATE")),
                )
        return found

    def _withheld(self, uids: list[int]) -> dict[int, FetchedEmail]:
        """Not given twice: gone if the server does not list it any more, else a problem to be shown."""
        listed = set(self._search(",".join(map(str, uids))))
        problem = f"{self.where} lists this email but gave an empty answer for it, twice."
        return {uid: FetchedEmail(uid, raw=None, problem=problem if uid in listed else GONE) for uid in uids}

    def _ask(self, uids: list[int], items: list[str]) -> tuple[dict[int, dict[bytes, Any]], dict[int, str]]:
        """FETCH; the answers, and why there is none for a UID on which the server or the parser stumbles."""
        if not uids:
            return {}, {}
        with self.plain_errors("was asked for emails") as client:
            try:
                return fetch_answers(client, uids, items), {}
            except IMAPClientAbortError:
                raise
            except (*PARSER_ERRORS, IMAPClientError) as error:
                # What arrived before the complaint would be mixed into the next answer.
                client._imap.response("FETCH")
                if not isinstance(error, PARSER_ERRORS) and passes(words_of(error)):
                    raise
                if len(uids) == 1:
                    return {}, self._refusal(client, uids[0], error)
        half = len(uids) // 2
        answers, refused = self._ask(uids[:half], items)
        more_answers, more_refused = self._ask(uids[half:], items)
        return answers | more_answers, refused | more_refused

    def _refusal(self, client: IMAPClient, uid: int, error: Exception) -> dict[int, str]:
        """Is it this email, or is it the server that says no to everything? Then it is no dead letter."""
        if not isinstance(error, PARSER_ERRORS) and not client.fetch([uid], ["FLAGS"]):
            return {}
        return {uid: words_of(error)}


def _folder_name(wire: bytes | str) -> str:
    if isinstance(wire, str):
        return wire
    with suppress(UnicodeError):
        return imap_utf7.decode(wire) if wire.isascii() else wire.decode("utf-8")
    return wire.decode("latin-1")


def _utc(moment: object) -> datetime | None:
    if not isinstance(moment, datetime):
        return None
    with suppress(ValueError, OverflowError):
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    return None


def _chunks(uids: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(uids), UIDS_PER_COMMAND):
        yield list(uids[start : start + UIDS_PER_COMMAND])
