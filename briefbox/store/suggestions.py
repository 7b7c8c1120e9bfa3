"""What a later brief says about a field that an agent wrote: it stands beside it until somebody takes or dismisses it."""

from sqlmodel import Session

from briefbox.errors import NotFoundError
from briefbox.schemas import BriefField
from briefbox.store import activities, conversations
from briefbox.tables import Conversation, User


def dismiss(session: Session, conversation_id: int, field: BriefField, *, user: User) -> Conversation:
    """Keep what the agent wrote. Raises NotFoundError when there is no suggestion, ConflictError for a merged one."""
    conversation = conversations.locked(session, conversation_id)
    if field not in conversation.suggestion:
        raise NotFoundError(f"There is no suggestion for the {field} any more.")
    activities.record(
        session,
        conversation,
        user,
        "dismissed",
        before=activities.values(conversation, "suggestion"),
        field=field,
        said=conversation.suggestion[field],
    )
    conversation.suggestion = without(conversation, field)
    conversations.changed(session, conversation)
    return conversation


def without(conversation: Conversation, field: str) -> dict[str, str]:
    """The suggestions for the other fields."""
    return {name: said for name, said in conversation.suggestion.items() if name != field}
