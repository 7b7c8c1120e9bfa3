"""Sends what webhooks are to be told: signed, to the very address that was looked at, within ten seconds.

Signed by the Standard Webhooks scheme: HMAC-SHA256 over "id.timestamp.body". Redirects are not followed: where one
leads nobody has looked at.
"""

import asyncio
import base64
import hmac
import logging
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address

import httpx

from briefbox.db import Database
from briefbox.errors import BriefboxError, InvalidValueError
from briefbox.net import Network, vetted_address
from briefbox.settings import Settings
from briefbox.store import deliveries, idempotency, secrets, webhooks
from briefbox.store.deliveries import Due

log = logging.getLogger(__name__)

SECONDS = 10.0
# How much of an answer is kept for the log.
MAX_READ = 4000
USER_AGENT = "briefbox-webhooks/1"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a message goes: the address that was vetted, under the name that was asked for."""

    url: httpx.URL
    host: str
    host_header: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one try. `status` is None where there was no answer."""

    due: Due
    status: int | None
    answer: str


def target(address: str, allowed: Sequence[Network]) -> Target:
    """Where this address leads now. Raises InvalidValueError for what is not reached from here.

    Plain http goes only to networks that the installation allows by name: on the open Internet anybody reads along.
    """
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        raise InvalidValueError(
            "This is no address; expected something like https://example.org/hook."
        ) from None
    if url.scheme not in ("https", "http") or not url.host:
        raise InvalidValueError("The address begins with neither https:// nor http://.")
    if url.userinfo or url.fragment:
        raise InvalidValueError("The address holds a password or a #; expected one without.")
    port = url.port or (443 if url.scheme == "https" else 80)
    if port > 65535:
        raise InvalidValueError(f"The port {port} is no port; expected 1 to 65535.")
    found = vetted_address(url.host, port, allowed)
    if url.scheme == "http" and not any(
        ip_address(found.partition("%")[0]) in network for network in allowed
    ):
        raise InvalidValueError(
            "Plain http goes only to addresses within BRIEFBOX_PRIVATE_NETWORKS; expected https://."
        )
    return Target(url.copy_with(host=found), url.host, url.netloc.decode("ascii"))


def signature(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the HMAC in base64, as the Standard Webhooks have it."""
    key = base64.b64decode(secret.removeprefix(webhooks.BEGINNING))
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, sha256).digest()).decode()


def send_due(database: Database, settings: Settings) -> bool:
    """Send what is due, some of each webhook at once. False when there was nothing."""
    with database.read() as session:
        if not deliveries.any_due(session):
            return False
    cipher = secrets.cipher(settings)
    with database.write() as session:
        claimed = deliveries.claim(session, cipher, address=settings.desk_address)
    if not claimed:
        return False
    for outcome in asyncio.run(send_all(claimed, settings.private_networks)):
        with database.write() as session:
            deliveries.record(session, outcome.due, outcome.status, outcome.answer)
    return True


def tidy(database: Database) -> bool:
    """Forget old deliveries and old idempotency keys."""
    with database.write() as session:
        deliveries.forget_old(session)
        idempotency.forget_old(session)
    return False


async def send_all(claimed: Sequence[Due], allowed: Sequence[Network]) -> list[Outcome]:
    """All of them at the same time; each ends within SECONDS."""
    # Not the proxy of the environment: it would connect to an address that nobody has looked at.
    async with httpx.AsyncClient(
        verify=_tls(), follow_redirects=False, trust_env=False, timeout=SECONDS
    ) as client:
        return list(await asyncio.gather(*(_send(client, due, allowed) for due in claimed)))


async def _send(client: httpx.AsyncClient, due: Due, allowed: Sequence[Network]) -> Outcome:
    if due.problem:
        return Outcome(due, None, due.problem)
    try:
        async with asyncio.timeout(SECONDS):
            place = await asyncio.to_thread(target, due.url, allowed)
            return await _post(client, due, place)
    except TimeoutError:
        return Outcome(due, None, f"There was no answer within {SECONDS:.0f} seconds.")
    except BriefboxError as error:
        return Outcome(due, None, str(error))
    except (httpx.HTTPError, OSError, UnicodeError) as error:
        return Outcome(due, None, f"It could not be sent: {error or type(error).__name__}")
    except Exception as error:
        # Whatever it was must not end the sending of the others.
        log.exception("webhook message %s: unexpected error", due.event_id)
        return Outcome(due, None, f"It could not be sent: {type(error).__name__}")


async def _post(client: httpx.AsyncClient, due: Due, place: Target) -> Outcome:
    body, timestamp = due.body.encode(), int(time.time())
    headers = {
        "Host": place.host_header,
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": due.event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            signature(secret, due.event_id, timestamp, body) for secret in due.secrets
        ),
    }
    request = client.build_request(
        "POST", place.url, content=body, headers=headers, extensions={"sni_hostname": place.host}
    )
    answer = await client.send(request, stream=True)
    try:
        said = b""
        async for part in answer.aiter_raw():  # not unpacked: little may become much
            said += part
            if len(said) >= MAX_READ:
                break
    finally:
        await answer.aclose()
    text = said[:MAX_READ].decode("utf-8", "replace")
    if answer.is_redirect:
        text = f"It redirects to {answer.headers.get('location', '')[:300]}; redirects are not followed. Enter that address instead, if it is meant."
    return Outcome(due, answer.status_code, text)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()
