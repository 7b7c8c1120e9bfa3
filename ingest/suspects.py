"""Emails on which a connection broke: fetched alone, then in part, then set aside, so that the line goes on."""

from collections.abc import Sequence

# A server may break the connection on one particular mail. It is then fetched alone, and after this
# many breaks it is a dead letter (with a retry), so that it does not stand before all later mail for ever.
MAX_BREAKS = 4
# After so many it is asked for in part: a server may send far more than the size that it stated.
BREAKS_BEFORE_PART = 2


class Suspects:
    """UIDs during whose fetch the connection broke, and how often it did so while one was fetched alone."""

    def __init__(self) -> None:
        """Kept for as long as the mailbox is watched; a restart starts counting afresh."""
        self._breaks: dict[tuple[str, int], int] = {}

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._breaks

    def broke(self, folder: str, uids: Sequence[int]) -> None:
        """The connection broke while these were fetched."""
        for uid in uids:
            self._breaks[folder, uid] = self._breaks.get((folder, uid), 0) + (len(uids) == 1)

    def passed(self, folder: str, uids: Sequence[int]) -> None:
        """These were fetched well."""
        for uid in uids:
            self._breaks.pop((folder, uid), None)

    def is_hard(self, folder: str, uid: int) -> bool:
        """Whether the connection broke so often on this one alone that only a part of it is asked for."""
        return self._breaks.get((folder, uid), 0) >= BREAKS_BEFORE_PART

    def is_condemned(self, folder: str, uid: int) -> bool:
        """Whether the connection broke too often on this one alone."""
        return self._breaks.get((folder, uid), 0) >= MAX_BREAKS
