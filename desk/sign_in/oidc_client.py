"""OpenID Connect as a relying party: authorization code with PKCE, state and nonce; the id_token verified by the issuer's keys.

RFC 6749, RFC 7636, OpenID Connect Core 1.0 and Discovery 1.0. The provider is asked when somebody signs in and at no other
time: while it is away the desk works, and only this way in does not. Nothing secret gets into an error or a log.
"""

import hmac
import json
import logging
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]
from authlib.integrations.httpx_client import OAuth2Client  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from briefbox.errors import BriefboxError
from briefbox.settings import Settings

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0
MAX_DOCUMENT = 256_000
LEEWAY_SECONDS = 60
# How long ago somebody may have signed in there when they are asked to do it anew.
FRESH_SECONDS = 300
# By the provider's private key alone: with a shared secret (HS256) whoever knows it could write tokens.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
_KEY_TYPES = ("RSA", "EC")


class ProviderError(BriefboxError):
    """The provider is away, or answered what no provider should. The text is for the person; the log has more."""

    permanent = False


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody at a provider. `label` is what the provider calls them: shown, and never relied on."""

    issuer: str
    subject: str
    label: str


@dataclass(frozen=True, slots=True)
class Provider:
    """What the provider says of itself."""

    issuer: str
    authorize_url: str
    token_url: str
    keys_url: str
    basic: bool  # it takes the client's secret in a header


def discover(settings: Settings) -> Provider:
    """Ask the issuer for its end-points. Raises ProviderError."""
    issuer = settings.oidc_issuer
    found = _document(settings, issuer.rstrip("/") + "/.well-known/openid-configuration")
    if found.get("issuer") != issuer:
        raise _failed(settings, f"it calls itself {found.get('issuer')!r}; expected {issuer!r}")
    urls: list[str] = []
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        url = found.get(name)
        if not isinstance(url, str) or not _is_as_safe(issuer, url):
            raise _failed(settings, f"its {name} is {url!r}; expected https")
        urls.append(url)
    methods = found.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    return Provider(issuer, urls[0], urls[1], urls[2], basic="client_secret_basic" in methods)


def authorize_url(
    settings: Settings, provider: Provider, *, back: str, state: str, nonce: str, verifier: str, fresh: bool
) -> str:
    """Where to send the browser; `fresh`: the provider asks them to sign in, even if they are."""
    anew = {"prompt": "login", "max_age": "0"} if fresh else {}
    with _client(settings, provider, back) as client:
        url, _ = client.create_authorization_url(
            provider.authorize_url, state=state, nonce=nonce, code_verifier=verifier, **anew
        )
    return str(url)


def redeem(
    settings: Settings, *, back: str, code: str, nonce: str, verifier: str, fresh: bool = False
) -> Account:
    """Who came back with this code. Raises ProviderError."""
    provider = discover(settings)
    try:
        with _client(settings, provider, back) as client:
            token = client.fetch_token(provider.token_url, code=code, code_verifier=verifier)
    except AuthlibBaseError as error:
        raise _failed(settings, f"it refused the code: {error.error}") from None
    except (httpx.HTTPError, ValueError) as error:
        raise _failed(settings, f"{type(error).__name__} at its token end-point") from None
    id_token = token.get("id_token") if isinstance(token, dict) else None
    if not isinstance(id_token, str):
        raise _failed(settings, "its answer has no id_token")
    claims = _verified(settings, provider, id_token, nonce)
    if fresh and not _is_fresh(claims.get("auth_time")):
        raise _failed(settings, "it did not ask them to sign in anew (auth_time)")
    label = next((claims[name] for name in ("email", "preferred_username", "name") if claims.get(name)), "")
    return Account(provider.issuer, str(claims["sub"]), str(label)[:200])


def _verified(settings: Settings, provider: Provider, id_token: str, nonce: str) -> dict[str, Any]:
    found = _document(settings, provider.keys_url).get("keys")
    keys = [
        key
        for key in (found if isinstance(found, list) else [])
        if isinstance(key, dict) and key.get("kty") in _KEY_TYPES and key.get("use", "sig") == "sig"
    ]
    registry = jwt.JWTClaimsRegistry(
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": provider.issuer},
        aud={"essential": True, "value": settings.oidc_client_id},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
        nonce={"essential": True},
    )
    try:
        claims = jwt.decode(
            id_token,
            KeySet.import_key_set({"keys": keys}),
            algorithms=list(ALGORITHMS),
        ).claims
        registry.validate(claims)
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise _failed(settings, f"its id_token does not verify ({type(error).__name__})") from None
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", settings.oidc_client_id if not several else None) != settings.oidc_client_id:
        raise _failed(settings, "its id_token was made for another application (azp)")
    if not hmac.compare_digest(str(claims["nonce"]).encode(), nonce.encode()):
        raise _failed(settings, "its id_token answers another request (nonce)")
    if not 0 < len(str(claims["sub"])) <= 255:
        raise _failed(settings, "its id_token names nobody (sub)")
    return dict(claims)


def _is_fresh(auth_time: object) -> bool:
    return isinstance(auth_time, int) and time.time() - auth_time < FRESH_SECONDS


def _client(settings: Settings, provider: Provider, back: str) -> Any:
    secret = settings.oidc_client_secret.get_secret_value() if settings.oidc_client_secret else None
    method = "none" if secret is None else "client_secret_basic" if provider.basic else "client_secret_post"
    return OAuth2Client(
        settings.oidc_client_id,
        secret,
        token_endpoint_auth_method=method,
        scope="openid email profile",
        redirect_uri=back,
        code_challenge_method="S256",
        timeout=TIMEOUT_SECONDS,
        follow_redirects=False,
        trust_env=not _is_local(provider.issuer),
    )


def _document(settings: Settings, url: str) -> dict[str, Any]:
    """A small JSON object from the provider."""
    try:
        with (
            httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=not _is_local(url)) as client,
            client.stream("GET", url, headers={"Accept": "application/json"}) as answer,
        ):
            answer.raise_for_status()
            body = b""
            for part in answer.iter_bytes():
                body += part
                if len(body) > MAX_DOCUMENT:
                    raise _failed(settings, f"{url} is larger than {MAX_DOCUMENT} bytes")
            if answer.status_code != 200:
                raise _failed(settings, f"{url} answered {answer.status_code}")
        found = json.loads(body)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
        raise _failed(settings, f"{type(error).__name__} at {url}") from None
    if not isinstance(found, dict):
        raise _failed(settings, f"{url} is no JSON object")
    return found


def _failed(settings: Settings, why: str) -> ProviderError:
    log.warning("Sign-in by %s: %s", settings.oidc_issuer, why)
    return ProviderError(
        f"Signing in with {settings.oidc_name} does not work now. Use your password or a link, or try again later; the desk's log says why."
    )


def _is_as_safe(issuer: str, url: str) -> bool:
    scheme = urlsplit(url).scheme
    return scheme == "https" or (scheme == "http" and _is_local(issuer) and _is_local(url))


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
