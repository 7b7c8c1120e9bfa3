"""From an address to its server, without a network: resolver and web are given."""

import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import dns.message
import dns.rcode
import dns.resolver
import dns.zone
import pytest

from briefbox.errors import InvalidValueError
from ingest import guess as guessing
from ingest import presets
from ingest.guess import DNSResolver, Guess, get_document, guess
from ingest.tls import tls_context
from tests.servers import make_certificate

XML = """<?xml version="1.0"?><clientConfig version="1.1"><emailProvider id="larkspur.example">
<incomingServer type="pop3"><hostname>pop.larkspur.example</hostname><port>995</port><socketType>SSL</socketType></incomingServer>
<incomingServer type="imap"><hostname>plain.larkspur.example</hostname><port>143</port><socketType>plain</socketType></incomingServer>
<incomingServer type="imap"><hostname>mail.%EMAILDOMAIN%</hostname><port>143</port><socketType>STARTTLS</socketType>
<username>%EMAILLOCALPART%</username><authentication>password-cleartext</authentication></incomingServer>
<incomingServer type="imap"><hostname>secure.larkspur.example</hostname><port>993</port><socketType>SSL</socketType>
<username>%EMAILADDRESS%</username><authentication>OAuth2</authentication><authentication>password-cleartext</authentication></incomingServer>
</emailProvider></clientConfig>"""


class Names:
    """A resolver that knows what it is given."""

    def __init__(
        self, mx: list[str] | None = None, srv: dict[str, list[tuple[str, int]]] | None = None
    ) -> None:
        self._mx, self._srv = mx or [], srv or {}

    def mx(self, domain: str) -> list[str]:
        return self._mx

    def srv(self, name: str) -> list[tuple[str, int]]:
        return self._srv.get(name, [])


def no_web(_: str) -> None:
    return None


def web(document: str) -> guessing.GetDocument:
    return lambda url: document.encode() if "autoconfig.larkspur.example" in url else None


def of(address: str, *, names: Names | None = None, get: guessing.GetDocument = no_web) -> Guess:
    return guess(address, resolver=names or Names(), http=get)


@pytest.mark.parametrize(
    ("address", "host", "port", "auth"),
    [
        ("ana@gmail.com", "imap.gmail.com", 993, "password"),
        ("ana@OUTLOOK.com", "outlook.office365.com", 993, "oauth2"),
        ("ana@larkspur.onmicrosoft.com", "outlook.office365.com", 993, "oauth2"),
        ("ana@gmx.de", "imap.gmx.net", 993, "password"),
        ("ana@163.com", "imap.163.com", 993, "password"),
        ("ana@proton.me", "127.0.0.1", 1143, "password"),
    ],
)
def test_known_domains(address: str, host: str, port: int, auth: str) -> None:
    found = of(address)
    assert (found.host, found.port, found.auth[0], found.username) == (host, port, auth, address)
    assert found.note.endswith((".", ":"))


@pytest.mark.parametrize(
    ("mx", "host"),
    [
        ("aspmx.l.google.com", "imap.gmail.com"),
        ("larkspur-example.mail.protection.outlook.com.", "outlook.office365.com"),
        ("larkspur-example.j-v1.mx.microsoft", "outlook.office365.com"),
        ("in1-smtp.messagingengine.com", "imap.fastmail.com"),
        ("mx00.kundenserver.de", "imap.ionos.de"),
        ("mxbiz1.qq.com", "imap.exmail.qq.com"),
    ],
)
def test_own_domains_at_known_providers_are_told_by_their_mail_hosts(mx: str, host: str) -> None:
    assert of("support@larkspur.example", names=Names([mx])).host == host


def test_a_name_that_only_ends_alike_is_nobodys() -> None:
    assert presets.by_domain("notgmail.com") is None
    assert presets.by_mail_hosts(["evil-l.google.com.attacker.example", "xl.google.com"]) is None


def test_srv_records_tls_before_starttls() -> None:
    both = {
        "_imaps._tcp.larkspur.example": [("mail.larkspur.example", 993)],
        "_imap._tcp.larkspur.example": [("old.larkspur.example", 143)],
    }
    found = of("support@larkspur.example", names=Names(srv=both))
    assert (found.host, found.port, found.security) == ("mail.larkspur.example", 993, "tls")
    del both["_imaps._tcp.larkspur.example"]
    found = of("support@larkspur.example", names=Names(srv=both))
    assert (found.host, found.security) == ("old.larkspur.example", "starttls")


def test_autoconfig_takes_tls_and_never_plain_text() -> None:
    found = of("support@larkspur.example", get=web(XML))
    assert (found.host, found.port, found.security) == ("secure.larkspur.example", 993, "tls")
    assert (found.username, found.auth) == ("support@larkspur.example", ("oauth2", "password"))
    found = of("support@larkspur.example", get=web(XML.replace("SSL", "plain")))
    assert (found.host, found.security, found.username) == ("mail.larkspur.example", "starttls", "support")


@pytest.mark.parametrize(
    "document",
    [
        "no xml",
        XML.replace('<?xml version="1.0"?>', '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'),
        XML.replace("secure.larkspur.example", "&e;").replace("mail.%EMAILDOMAIN%", "a b"),
        XML.replace("secure.larkspur.example", "x\r\nA LOGOUT").replace("mail.%EMAILDOMAIN%", "-"),
        XML.replace("993", "0").replace(">143<", ">99999<"),
        XML.replace('type="imap"', 'type="exchange"'),
        "",
    ],
)
def test_autoconfig_that_cannot_be_believed_is_passed_over(document: str) -> None:
    found = of("support@larkspur.example", get=web(document))
    assert (found.host, found.source) == ("imap.larkspur.example", "a guess, nothing says so")


def test_the_last_guess_and_an_international_domain() -> None:
    assert of("büro@müller.example").host == "imap.xn--mller-kva.example"


@pytest.mark.parametrize(
    "address", ["support", "@larkspur.example", "a@b", "a@b c.example", "a@", "a@x.example\r\n@y"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(InvalidValueError, match="no e-mail address"):
        of(address)


def test_every_preset_is_complete() -> None:
    names = [domain for provider in presets.PROVIDERS for domain in provider.domains]
    assert len(names) == len(set(names))
    for provider in presets.PROVIDERS:
        assert provider.domains or provider.mail_hosts
        assert provider.security in ("tls", "starttls")
        assert set(provider.auth) <= {"password", "oauth2"}
        assert (provider.oauth != "") == ("oauth2" in provider.auth)


# --- asking names


ZONE = """$TTL 60
@ IN MX 20 backup.larkspur.example.
@ IN MX 10 aspmx.l.google.com.
_imaps._tcp IN SRV 10 5 993 second.larkspur.example.
_imaps._tcp IN SRV 5 0 1993 first.larkspur.example.
_imap._tcp IN SRV 0 0 0 .
"""


@contextmanager
def name_server() -> Iterator[dns.resolver.Resolver]:
    zone = dns.zone.from_text(ZONE, origin="larkspur.example", relativize=False, check_origin=False)

    class Handler(socketserver.DatagramRequestHandler):
        def handle(self) -> None:
            query = dns.message.from_wire(self.request[0])
            asked = query.question[0]
            answer = dns.message.make_response(query)
            found = zone.get_rrset(asked.name, asked.rdtype) if asked.name.is_subdomain(zone.origin) else None
            if found is None:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            else:
                answer.answer.append(found)
            self.request[1].sendto(answer.to_wire(), self.client_address)

    with socketserver.UDPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], server.server_address[1]
        yield resolver
        server.shutdown()
        thread.join(5)


def test_names_are_asked_by_preference() -> None:
    with name_server() as resolver:
        names = DNSResolver(resolver)
        assert names.mx("larkspur.example")[0] == "aspmx.l.google.com"
        assert names.srv("_imaps._tcp.larkspur.example") == [
            ("first.larkspur.example", 1993),
            ("second.larkspur.example", 993),
        ]
        assert names.srv("_imap._tcp.larkspur.example") == []  # "." says that there is none
        assert names.mx("nobody.example") == []
    assert names.mx("larkspur.example") == []  # no name server answers


# --- fetching a document


@contextmanager
def https(folder: Path, answers: dict[str, tuple[int, str, bytes]]) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, location, body = answers[self.path]
            self.send_response(code)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    certificate = make_certificate(folder)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert_file, certificate.key_file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_documents_come_over_verified_https_and_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        "/ok": (200, "", b"<x/>"),
        "/moved": (302, "/ok", b""),
        "/away": (302, "http://127.0.0.1:1/ok", b""),
        "/file": (302, "file:///etc/passwd", b""),
        "/loop": (302, "/loop", b""),
        "/large": (200, "", b"x" * 300_000),
        "/missing": (404, "", b"<x/>"),
    }
    with https(tmp_path, answers) as port:
        base = f"https://127.0.0.1:{port}"
        assert get_document(f"{base}/ok") is None  # nobody vouches for its certificate
        trusting = tls_context(tmp_path / "ca.pem")
        monkeypatch.setattr(guessing, "tls_context", lambda _: trusting)
        assert get_document(f"{base}/ok") == get_document(f"{base}/moved") == b"<x/>"
        for path in ("/away", "/file", "/loop", "/large", "/missing"):
            assert get_document(base + path) is None
        assert get_document("http://127.0.0.1:1/ok") is None
