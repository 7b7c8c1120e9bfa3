"""From an address to its IMAP server: presets, MX, SRV (RFC 6186), Thunderbird's autoconfig, and at last imap.DOMAIN.

A guess is only ever shown: no password is sent before an admin has said yes. The domain comes from the admin, and its own
DNS and web server answer, so little is believed: verified https alone, no other scheme after a redirect, a few seconds, a
small document without entities, and a host name that looks like one.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urljoin, urlsplit

import dns.exception
import dns.resolver
import httpx
from lxml import etree

from briefbox.errors import InvalidValueError
from briefbox.net import Network, VettedTransport
from ingest import presets
from ingest.tls import tls_context

DNS_SECONDS = 3.0
HTTP_SECONDS = 5.0
MAX_DOCUMENT_BYTES = 200_000
MAX_REDIRECTS = 3
_HOST = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Guess:
    """How a mailbox is probably reached, where that is from, and what to know."""

    host: str
    port: int
    security: str  # tls or starttls
    username: str
    source: str
    auth: tuple[str, ...] = ("password",)
    provider: str = ""  # for --provider
    note: str = ""


class Resolver(Protocol):
    """Names of a domain's mail hosts and services; an empty list where there are none, or no answer."""

    def mx(self, domain: str) -> list[str]:
        """MX hosts, the preferred first."""

    def srv(self, name: str) -> list[tuple[str, int]]:
        """SRV targets with ports, the preferred first."""


GetDocument = Callable[[str], bytes | None]


def guess(address: str, *, resolver: Resolver | None = None, http: GetDocument | None = None) -> Guess:
    """The most likely server of this address. Raises InvalidValueError when it is no address."""
    local, domain = _parts(address)
    if provider := presets.by_domain(domain):
        return _of(provider, address, f"{provider.name} is known")
    resolver = resolver or DNSResolver()
    if provider := presets.by_mail_hosts(resolver.mx(domain)):
        return _of(provider, address, f"{provider.name} takes the mail of {domain} (MX)")
    for service, security in (("_imaps", "tls"), ("_imap", "starttls")):
        for host, port in resolver.srv(f"{service}._tcp.{domain}"):
            if _is_host(host):
                return Guess(host, port, security, address, f"{domain} names it (SRV)")
    get = http or get_document
    for url in (
        f"https://autoconfig.{domain}/mail/config-v1.1.xml",
        f"https://{domain}/.well-known/autoconfig/mail/config-v1.1.xml",
    ):
        if (document := get(url)) and (found := _from_autoconfig(document, local, domain, url)):
            return found
    return Guess(f"imap.{domain}", 993, "tls", address, "a guess, nothing says so")


def _parts(address: str) -> tuple[str, str]:
    local, _, domain = address.strip().rpartition("@")
    try:
        domain = domain.lower().rstrip(".").encode("idna").decode("ascii")
    except UnicodeError:
        domain = ""
    if not local or not _is_host(domain):
        raise InvalidValueError(
            f"{address!r} is no e-mail address; expected one such as support@example.org."
        )
    return local, domain


def _of(provider: presets.Provider, address: str, source: str) -> Guess:
    return Guess(
        provider.host,
        provider.port,
        provider.security,
        address,
        source,
        provider.auth,
        provider.oauth,
        provider.note,
    )


def _is_host(name: str) -> bool:
    return _HOST.fullmatch(name.lower().rstrip(".")) is not None


# --- autoconfig


def _from_autoconfig(document: bytes, local: str, domain: str, url: str) -> Guess | None:
    """The best IMAP server of a config-v1.1.xml: TLS before STARTTLS, never without encryption."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(document, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None
    if root.getroottree().docinfo.internalDTD is not None:
        return None
    found: dict[str, Guess] = {}
    for server in root.iterfind(".//emailProvider/incomingServer"):
        security = {"SSL": "tls", "STARTTLS": "starttls"}.get((server.findtext("socketType") or "").strip())
        host = _filled(server.findtext("hostname"), local, domain)
        port = (server.findtext("port") or "").strip()
        if server.get("type") != "imap" or security is None or not _is_host(host) or not port.isdecimal():
            continue
        username = _filled(server.findtext("username") or "%EMAILADDRESS%", local, domain)
        auth = _auth([e.text or "" for e in server.iterfind("authentication")])
        if 0 < int(port) < 65536:
            found.setdefault(
                security,
                Guess(
                    host,
                    int(port),
                    security,
                    username,
                    f"{urlsplit(url).hostname} says so (autoconfig)",
                    auth,
                ),
            )
    return found.get("tls") or found.get("starttls")


def _filled(template: str | None, local: str, domain: str) -> str:
    text = (template or "").strip()
    for name, value in (
        ("%EMAILADDRESS%", f"{local}@{domain}"),
        ("%EMAILLOCALPART%", local),
        ("%EMAILDOMAIN%", domain),
    ):
        text = text.replace(name, value)
    return text if text.isprintable() else ""


def _auth(ways: Sequence[str]) -> tuple[str, ...]:
    found = ["oauth2" if way.strip() == "OAuth2" else "password" for way in ways]
    return tuple(dict.fromkeys(found)) or ("password",)


# --- the network


class DNSResolver:
    """Asks the machine's resolver. No answer is an empty one: the next way of guessing comes then."""

    def __init__(self, resolver: dns.resolver.Resolver | None = None) -> None:
        """`resolver` stands for the machine's."""
        self._resolver = resolver

    def mx(self, domain: str) -> list[str]:
        """MX hosts by preference."""
        records = sorted(self._ask(domain, "MX"), key=lambda r: r.preference)
        return [_name(r.exchange) for r in records]

    def srv(self, name: str) -> list[tuple[str, int]]:
        """SRV targets by priority and weight; a target of "." says that there is no such service (RFC 2782)."""
        records = sorted(self._ask(name, "SRV"), key=lambda r: (r.priority, -r.weight))
        return [(_name(r.target), r.port) for r in records if _name(r.target)]

    def _ask(self, name: str, kind: str) -> list:  # type: ignore[type-arg]  # dnspython's record types are made at run time
        try:
            resolver = self._resolver or dns.resolver.get_default_resolver()
            return list(resolver.resolve(name, kind, lifetime=DNS_SECONDS))
        except (dns.exception.DNSException, OSError, ValueError):
            return []


def _name(name: object) -> str:
    return str(name).rstrip(".").lower()


def get_document(url: str, networks: Sequence[Network] | None = None) -> bytes | None:
    """A small document over verified https, or None. `networks` as in Account."""
    verify = tls_context(None)
    transport = None if networks is None else VettedTransport(networks, verify=verify)
    try:
        with httpx.Client(
            verify=verify, timeout=HTTP_SECONDS, follow_redirects=False, transport=transport
        ) as client:
            for _ in range(MAX_REDIRECTS + 1):
                if urlsplit(url).scheme != "https":
                    return None
                with client.stream("GET", url) as answer:
                    if answer.has_redirect_location:
                        url = urljoin(url, answer.headers["Location"])
                        continue
                    return _small(answer) if answer.status_code == 200 else None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, InvalidValueError):
        return None
    return None


def _small(answer: httpx.Response) -> bytes | None:
    body = b""
    for part in answer.iter_bytes():
        body += part
        if len(body) > MAX_DOCUMENT_BYTES:
            return None
    return body
