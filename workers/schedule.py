"""Beat's schedule: the sweeps that make a lost hint cost seconds. A double tick is harmless."""

from typing import Any

from briefbox.queue import BRIEFS, TASK_SWEEP, TASK_TRAIN, TRAINING
from briefbox.settings import Settings

# A training run that lost its hint or its process is offered again this often.
TRAINING_SWEEP_SECONDS = 15.0


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """What beat sends, how often, and how long a tick is worth anything."""
    return {
        "sweep": {
            "task": TASK_SWEEP,
            "schedule": settings.sweep_seconds,
            "options": {"queue": BRIEFS, "expires": max(1.0, settings.sweep_seconds)},
        },
        "training": {
            "task": TASK_TRAIN,
            "schedule": TRAINING_SWEEP_SECONDS,
            "args": [0],
            "options": {"queue": TRAINING, "expires": TRAINING_SWEEP_SECONDS},
        },
    }
