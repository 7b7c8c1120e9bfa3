"""The wake-up: Celery tasks sent by name over Redis. Losing one costs only delay.

Producers know task names and queues, never the code behind them. A hint that cannot be sent is no
error: the row is committed, and the sweeper offers it again.
"""

import logging
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from briefbox.errors import QueueError
from briefbox.settings import Settings

BRIEFS = "briefs"
TRAINING = "training"
TASK_BRIEF = "briefbox.brief"
TASK_SWEEP = "briefbox.sweep"
TASK_TRAIN = "briefbox.train"

# One value in every process: each worker applies its own to the whole broker's unacknowledged messages.
VISIBILITY_TIMEOUT = 600

log = logging.getLogger(__name__)


def make_celery(settings: Settings) -> Celery:
    """The Celery app of this installation: JSON only, no result backend, no surprises on reconnect."""
    app = Celery("briefbox", broker=settings.redis_address, set_as_current=False)
    app.conf.update(
        result_backend=None,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        event_serializer="json",
        task_default_queue=BRIEFS,
        task_create_missing_queues=True,
        task_acks_late=False,  # the row is the truth; a message is only a hint
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": not settings.redis_address.startswith("redis+socket"),
            "health_check_interval": 25,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
        },
        timezone="UTC",
        enable_utc=True,
    )
    return app


class Hints:
    """Sends hints. One object per process; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is connected until the first hint."""
        self._app = make_celery(settings)

    def brief(self, email_ids: list[int]) -> bool:
        """Say that these emails wait for a brief. False when Redis cannot be reached (the sweeper will say it again)."""
        return all(self._send(TASK_BRIEF, BRIEFS, i) for i in email_ids)

    def train(self, run_id: int) -> bool:
        """Say that a training run waits."""
        return self._send(TASK_TRAIN, TRAINING, run_id)

    def _send(self, task: str, queue: str, row_id: int) -> bool:
        try:
            # No retry: the caller is a poller or a web request, and waiting helps nobody.
            self._app.send_task(task, args=[row_id], queue=queue, retry=False, ignore_result=True)
        except (OperationalError, redis.RedisError, OSError) as error:
            log.warning(
                "hint %s for row %s not sent (%s); the sweeper will offer it again", task, row_id, error
            )
            return False
        return True


def ping(settings: Settings) -> dict[str, Any]:
    """What the broker says of itself. Raises QueueError in one sentence when it cannot be reached."""
    try:
        with _client(settings.redis_address) as client:
            info: Any = client.info("server")
            waiting = {name: client.llen(name) for name in (BRIEFS, TRAINING)}
    except (redis.RedisError, OSError) as error:
        fix = (
            "Start it with: briefbox up"
            if settings.embedded_redis
            else "Check that it runs and that BRIEFBOX_REDIS_URL is right"
        )
        raise QueueError(
            f"Redis cannot be reached ({error}). Mail is still stored and waits in the database. {fix}."
        ) from error
    return {"version": info.get("valkey_version") or info.get("redis_version"), "waiting": waiting}


def _client(address: str) -> "redis.Redis":
    if address.startswith("redis+socket://"):
        path = address.removeprefix("redis+socket://").partition("?")[0]
        return redis.Redis(unix_socket_path=path, socket_timeout=5)
    return redis.Redis.from_url(address, socket_timeout=5, socket_connect_timeout=5)


_senders: dict[str, Hints] = {}


def hints_for(settings: Settings) -> Hints:
    """The process's sender for these settings."""
    # By the broker's address: settings hold a dictionary, so that they cannot be a key themselves.
    address = settings.redis_address
    if address not in _senders:
        _senders[address] = Hints(settings)
    return _senders[address]
