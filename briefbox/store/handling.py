"""What the settings say about mail that comes in."""

from dataclasses import dataclass

from briefbox.schemas import EmailKind
from briefbox.settings import Settings


@dataclass(frozen=True, slots=True)
class Handling:
    """What the settings say about mail: which kinds are briefed, and how long a subject alone joins a conversation."""

    brief_kinds: frozenset[str] = frozenset({EmailKind.CUSTOMER.value})
    thread_days: float = 14

    @classmethod
    def of(cls, settings: Settings) -> "Handling":
        """The part of the settings."""
        return cls(frozenset(settings.brief_kinds), settings.thread_days)
