"""How fast the model is, and whether it has become much slower than it was."""

from collections import defaultdict, deque
from statistics import median

# A batch this many times slower than the median of its like is worth an alert.
SLOW_TIMES = 10.0
# Batches below this are never slow: at such a scale anything else on the machine counts more.
SLOW_FLOOR_SECONDS = 1.0
MIN_BATCHES = 8
MAX_BATCHES = 50


class Pace:
    """The seconds of the last batches, by size: one email costs far more alone than among thirty."""

    def __init__(self, floor: float = SLOW_FLOOR_SECONDS) -> None:
        """Batches quicker than `floor` seconds are never slow."""
        self.floor = floor
        self.num_done = 0
        self.last = (0, 0.0)
        self._seconds: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=MAX_BATCHES))

    def note(self, num_emails: int, seconds: float) -> float | None:
        """Remember a batch. Returns how many times slower than the median of its like it was, if that is too slow."""
        like = self._seconds[(num_emails - 1).bit_length()]
        usual = median(like) if len(like) >= MIN_BATCHES else None
        like.append(seconds)
        self.num_done += num_emails
        self.last = (num_emails, seconds)
        if usual is None or seconds < self.floor or seconds <= SLOW_TIMES * usual:
            return None
        return seconds / max(usual, 1e-9)

    def __str__(self) -> str:
        """Progress for people."""
        if not self.num_done:
            return "no email done yet"
        num, seconds = self.last
        return f"{self.num_done} emails done, the last batch of {num} took {seconds:.1f} s"
