"""Mailbox servers for tests: Debian's Dovecot, a scripted one that misbehaves, and certificates.

The embedded server is part of the product (briefbox.embedded.imap); these are not.
"""

import grp
import os
import pwd
import shutil
import socket
import socketserver
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from imapclient import IMAPClient

DOVECOT = Path("/usr/sbin/dovecot")


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files of a server's certificate, and of the authority that signed it."""

    ca_file: Path
    cert_file: Path
    key_file: Path


def make_certificate(folder: Path, *names: str) -> Certificate:
    """A certificate for `names` (localhost and 127.0.0.1 without any) by an authority of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("briefbox test authority", ca_key, issuer="briefbox test authority", signer=ca_key)
    alternatives = [
        x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
        for name in names or ("localhost", "127.0.0.1")
    ]
    cert = _certificate("server", key, issuer="briefbox test authority", signer=ca_key, names=alternatives)
    made = Certificate(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    made.ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    made.cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    made.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    made.key_file.chmod(0o600)
    return made


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    names: Sequence[x509.GeneralName] | None = None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=names is None,
                crl_sign=names is None,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- Dovecot


@dataclass(frozen=True, slots=True)
class Dovecot:
    """A running Dovecot with one user; `port` takes plain text and STARTTLS, `tls_port` TLS."""

    port: int
    tls_port: int
    ca_file: Path
    log_file: Path
    user: str = "desk"
    password: str = "correct horse battery"

    @contextmanager
    def client(self) -> Iterator[IMAPClient]:
        """A signed-in client, for what a person or another program does to the mailbox."""
        with IMAPClient("127.0.0.1", port=self.port, ssl=False, timeout=30) as client:
            client.login(self.user, self.password)
            yield client

    def append(self, *raws: bytes, folder: str = "INBOX") -> None:
        """Deliver mails."""
        with self.client() as client:
            for raw in raws:
                client.append(folder, raw)


@contextmanager
def dovecot(folder: Path, *, introspection_url: str = "", num_users: int = 1) -> Iterator[Dovecot]:
    """Run Dovecot 2.3, as root or not; a visible skip where it is missing. The certificate lies in `folder`.

    More users than one are called desk1, desk2 and so on, with the same password.
    With an introspection address it takes OAuth2 tokens, too, and asks there whose they are (RFC 7662).
    """
    if not DOVECOT.exists():
        pytest.skip(f"{DOVECOT} is not there: apt-get install dovecot-imapd")
    version = subprocess.run(
        [DOVECOT, "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not version.startswith("2.3."):
        pytest.skip(f"Dovecot {version} speaks another configuration language than 2.3")
    certificate = make_certificate(folder / "dovecot-certificate")
    # Its sockets' paths must fit into 107 bytes, and its users must reach them: not in pytest's own folders.
    # Its children may outlive it by a moment and write once more.
    with TemporaryDirectory(prefix="bbdc", dir="/tmp", ignore_cleanup_errors=True) as name:
        base = Path(name)
        base.chmod(0o755)
        server = Dovecot(free_port(), free_port(), certificate.ca_file, base / "dovecot.log")
        _configure(base, server, certificate, num_users)
        if introspection_url:
            _take_tokens(base, introspection_url)
        process = subprocess.Popen(
            [DOVECOT, "-F", "-c", base / "dovecot.conf"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            _wait_for_greeting(server, process)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stderr is not None:
                process.stderr.close()


def _configure(base: Path, server: Dovecot, certificate: Certificate, num_users: int = 1) -> None:
    is_root = os.geteuid() == 0
    me = pwd.getpwuid(os.geteuid())
    # Dovecot refuses to serve mail as root, so as root it has users of its own.
    internal, group, login, mail = (
        ("dovecot", "dovecot", "dovenull", "mail")
        if is_root
        else (me.pw_name, grp.getgrgid(me.pw_gid).gr_name, me.pw_name, me.pw_name)
    )
    (base / "mail").mkdir()
    if is_root:
        shutil.chown(base / "mail", "mail", "mail")
    users = base / "users"
    names = [server.user, *(f"{server.user}{n}" for n in range(1, num_users))]
    users.write_text("".join(f"{name}:{{PLAIN}}{server.password}::::::\n" for name in names))
    users.chmod(0o644)
    (base / "dovecot.conf").write_text(
        f"""
base_dir = {base}/run
state_dir = {base}/state
log_path = {server.log_file}
protocols = imap
listen = 127.0.0.1
default_internal_user = {internal}
default_internal_group = {group}
default_login_user = {login}
first_valid_uid = 1
ssl = yes
ssl_cert = <{certificate.cert_file}
ssl_key = <{certificate.key_file}
disable_plaintext_auth = no
mail_location = maildir:{base}/mail/%u
mail_uid = {mail}
mail_gid = {mail if is_root else group}
mail_fsync = never
auth_failure_delay = 0
namespace inbox {{
  inbox = yes
  separator = .
}}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {users}
}}
userdb {{
  driver = static
  args = uid={mail} gid={mail if is_root else group} home={base}/mail/%u
}}
service imap {{
  process_limit = {num_users + 100}
}}
service imap-login {{
  chroot =
  service_count = 0
  client_limit = {num_users + 200}
  inet_listener imap {{
    port = {server.port}
  }}
  inet_listener imaps {{
    port = {server.tls_port}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
  client_limit = {2 * num_users + 1000}
  # Without its socket a failed sign-in does not slow down the next one.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
"""
    )


def _take_tokens(base: Path, introspection_url: str) -> None:
    (base / "oauth2.conf").write_text(
        f"""
introspection_url = {introspection_url}
introspection_mode = post
force_introspection = yes
username_attribute = username
active_attribute = active
active_value = true
"""
    )
    (base / "oauth2.conf").chmod(0o644)
    with (base / "dovecot.conf").open("a") as file:
        file.write(
            f"""
auth_mechanisms = plain login xoauth2 oauthbearer
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {base}/oauth2.conf
}}
"""
        )


def _wait_for_greeting(server: Dovecot, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
                if connection.recv(100).startswith(b"* OK"):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    process.terminate()
    said = process.stderr.read().decode() if process.stderr else ""
    log = server.log_file.read_text() if server.log_file.exists() else ""
    pytest.fail(f"Dovecot did not start: {said}\n{log}")


# --- a server that does as it is told


class ScriptedIMAP:
    """Answers each command with the bytes given for it: for what well-behaved servers never do.

    Keys are the beginnings of commands ("UID FETCH"), longest first; in an answer `TAG` stands for the
    command's tag. `None` closes the connection, and so does an answer that ends in CLOSE. What a client says after
    an answer that begins with "+ " counts as a command that begins with "SASL".
    """

    CLOSE = b"<close>"
    ORDINARY: Mapping[str, bytes | None] = {
        "CAPABILITY": b"* CAPABILITY IMAP4rev1 IDLE\r\nTAG OK done\r\n",
        "LOGIN": b"TAG OK in\r\n",
        "EXAMINE": b"* 2 EXISTS\r\n* OK [UIDVALIDITY 7] ok\r\n* OK [UIDNEXT 3] ok\r\nTAG OK [READ-ONLY] done\r\n",
        "NOOP": b"TAG OK done\r\n",
        "LOGOUT": b"* BYE\r\nTAG OK done\r\n",
        "DONE": b"TAG OK done\r\n",
    }

    def __init__(self, answers: Mapping[str, bytes | None], *, greeting: bytes = b"* OK hello\r\n") -> None:
        self.answers = {**self.ORDINARY, **answers}
        self.greeting = greeting
        self.commands: list[str] = []
        scripted = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                scripted._handle(self)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "ScriptedIMAP":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def answer_to(self, command: str) -> bytes | None:
        """What is sent for this command."""
        key = max((k for k in self.answers if command.upper().startswith(k)), key=len, default="")
        return self.answers.get(key, b"TAG BAD unknown\r\n")

    def _handle(self, connection: socketserver.StreamRequestHandler) -> None:
        connection.wfile.write(self.greeting)
        tag, asked_for_more = "", False
        while line := connection.rfile.readline():
            command = line.decode().strip()
            if asked_for_more and command != "DONE":
                command = f"SASL {command}".strip()
            elif command != "DONE":
                tag, _, command = command.partition(" ")
            self.commands.append(command)
            answer = self.answer_to(command)
            if answer is None:
                return
            asked_for_more = answer.startswith(b"+ ")
            connection.wfile.write(answer.replace(b"TAG", tag.encode()).removesuffix(self.CLOSE))
            if answer.endswith(self.CLOSE):
                return
