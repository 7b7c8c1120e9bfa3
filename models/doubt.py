"""When a label is too doubtful to rely on: thresholds by field and by label."""

from collections.abc import Mapping

from briefbox.errors import SettingsError
from briefbox.schemas import PRIORITIES, AdapterCard, BriefField, LabelScore
from briefbox.settings import Settings

# The key of the threshold for everything that has none of its own.
DEFAULT = ""


def thresholds(settings: Settings, card: AdapterCard | None = None) -> Mapping[str, float]:
    """Confidences below which a label needs a human, by "field/label", "field" or DEFAULT.

    BRIEFBOX_NEEDS_HUMAN_AT wins over the adapter's card, which wins over BRIEFBOX_NEEDS_HUMAN_BELOW.
    """
    fitted = card.thresholds if card else {}
    return {DEFAULT: settings.needs_human_below, **fitted, **settings.needs_human_at}


def needs_human(
    labels: Mapping[BriefField, LabelScore], limits: Mapping[str, float]
) -> tuple[BriefField, ...]:
    """The fields whose label is below its threshold. An unknown confidence is not judged."""
    return tuple(
        field
        for field, score in labels.items()
        if score.confidence is not None and score.confidence < _limit(field, score.label, limits)
    )


def check_thresholds(settings: Settings) -> None:
    """Raise SettingsError when BRIEFBOX_NEEDS_HUMAN_AT names a field or a priority that does not exist."""
    for key in settings.needs_human_at:
        field, _, label = key.partition("/")
        if field not in ("priority", "category"):
            raise SettingsError(
                f"BRIEFBOX_NEEDS_HUMAN_AT names {key!r}; expected priority, category, or one of them with a label, such as priority/urgent."
            )
        if field == "priority" and label and label not in PRIORITIES:
            raise SettingsError(
                f"BRIEFBOX_NEEDS_HUMAN_AT names the priority {label!r}; expected one of {', '.join(PRIORITIES)}."
            )


def _limit(field: str, label: str, limits: Mapping[str, float]) -> float:
    for key in (f"{field}/{label}", field, DEFAULT):
        if key in limits:
            return limits[key]
    return 0.0
