"""The fields of a brief as the conversation page shows them: what stands there, who changed it, what else is said."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from briefbox.errors import InvalidValueError
from briefbox.schemas import BRIEF_FIELDS, BriefField
from briefbox.store import conversations
from briefbox.tables import Brief, Conversation, Correction, User

REASONS = ("wrong", "too long", "too short", "misses the point", "wrong language")


@dataclass(frozen=True, slots=True)
class FieldView:
    """One field of the brief: what stands there, how sure the model was, and who changed it."""

    name: BriefField
    value: str
    corrections: Sequence[tuple[Correction, User]]  # the latest last
    confidence: float | None
    doubtful: bool
    unsure: bool  # the model's value stands there, and nobody knows how sure the model was
    suggestion: str  # what a later brief says, where it differs
    kept: str  # what this agent typed and we could not save

    @property
    def model_said(self) -> str:
        """What stood there before any agent wrote it."""
        return self.corrections[0][0].before if self.corrections else self.value


@dataclass(frozen=True, slots=True)
class Clash:
    """Two agents wrote one field: what stands there now, by whom, and what the second one wrote."""

    field: FieldView
    yours: str
    reason: str

    @property
    def by(self) -> str:
        """Who wrote what stands there; "" is a newer brief."""
        if not self.field.corrections:
            return ""
        correction, user = self.field.corrections[-1]
        return (user.name or user.email) if correction.after == self.field.value else ""


def field_views(
    session: Session, conversation: Conversation, brief: Brief | None, kept: Mapping[str, str]
) -> dict[str, FieldView]:
    """All of them, by name. `kept` is what was typed and not saved."""
    changed: dict[str, list[tuple[Correction, User]]] = defaultdict(list)
    for correction, user in conversations.corrections(session, conversation.id):
        changed[correction.field].append((correction, user))
    confidence: dict[str, float | None] = {}
    if brief is not None:
        confidence = {"priority": brief.priority_confidence, "category": brief.category_confidence}

    def view(name: BriefField) -> FieldView:
        value, suggestion = getattr(conversation, name), conversation.suggestion.get(name, "")
        return FieldView(
            name=name,
            value=value,
            corrections=changed[name],
            confidence=confidence.get(name),
            doubtful=name in conversation.needs_human,
            unsure=name in confidence and confidence[name] is None and name not in conversation.touched,
            suggestion=suggestion if suggestion != value else "",
            kept=kept.get(name, ""),
        )

    return {name: view(name) for name in BRIEF_FIELDS}


def field_named(name: str) -> BriefField:
    """Raises InvalidValueError."""
    for field in BRIEF_FIELDS:
        if field == name:
            return field
    raise InvalidValueError(f"The field “{name[:50]}” is none of {', '.join(BRIEF_FIELDS)}.")


def same(shown: str, standing: str) -> bool:
    """Whether a form's value is the one that stands there: forms send line breaks in their own way, and no NUL."""
    return shown == standing.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
