"""An OpenID provider on this machine: discovery, keys and signed id_tokens on top of the OAuth2 provider."""

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from tests.oauth_server import CLIENT_ID, CLIENT_SECRET, OAuthServer


class OIDCServer(OAuthServer):
    """Signs everybody in as `subject`. `claims` replaces claims (None takes one out), `metadata` parts of the discovery
    document; `key` signs, and `published` is what the world is told of keys."""

    def __init__(self, *, kind: str = "RSA") -> None:
        super().__init__()
        self.key: Any = (
            RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
            if kind == "RSA"
            else ECKey.generate_key("P-256", {"kid": "one", "use": "sig"})
        )
        self.algorithm = "RS256" if kind == "RSA" else "ES256"
        self.published: list[Any] = [self.key]
        self.subject = "248289761001"
        self.claims: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self._asked: dict[str, dict[str, str]] = {}

    def settings(self) -> dict[str, Any]:
        """Those of a desk that uses this provider."""
        return {
            "oidc_issuer": self.url,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret": CLIENT_SECRET,
            "oidc_name": "Larkspur account",
        }

    def visit(self, location: str) -> str:
        """What a browser does that is sent here: the path on the desk to which it is sent back."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        back = urlsplit(self._authorize(query))
        return f"{back.path}?{back.query}"

    def id_token(self, nonce: str) -> str:
        """Signed for whoever asked with this nonce."""
        moment = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "sub": self.subject,
            "iat": moment,
            "exp": moment + 300,
            "nonce": nonce,
            "auth_time": moment,
            "email": "ana@elsewhere.example",
        } | self.claims
        header = {"alg": self.algorithm, "kid": "one"} | self.header
        return jwt.encode(
            header, {k: v for k, v in claims.items() if v is not None}, self.key, algorithms=[header["alg"]]
        )

    def _document(self, path: str) -> Any:
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
            } | self.metadata
        if path == "/keys":
            return KeySet(self.published).as_dict(private=False)
        return None

    def _authorize(self, query: dict[str, str]) -> str:
        location = super()._authorize(query)
        [code] = parse_qs(urlsplit(location).query)["code"]
        self._asked[code] = query
        return location

    def _token(self, form: dict[str, str]) -> tuple[int, Any]:
        asked = self._asked.pop(form.get("code", ""), {})
        status, granted = super()._token(form)
        if status == 200:
            granted["id_token"] = self.id_token(asked.get("nonce", ""))
        return status, granted


def shared_secret() -> OctKey:
    """A key that is no key pair."""
    return OctKey.import_key("a secret that both sides know, and long enough", {"kid": "one"})
