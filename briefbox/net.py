"""Whom this machine connects to when somebody names a host in the browser.

A name that a person types may lead into our own network: to the database, to a cloud's metadata service, to the
machine itself. So it is resolved once, addresses that are not public are refused, and the connection goes to that
very address. `private_networks` in the settings says which networks are reached all the same.
"""

import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

from briefbox.errors import InvalidValueError

Network = IPv4Network | IPv6Network

# Addresses that carry an IPv4 address inside; what counts is the one inside.
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = IPv6Network("::/96")


def vetted_address(host: str, port: int, allowed_networks: Sequence[Network] = ()) -> str:
    """The address to connect to for this host. Raises InvalidValueError when it is not public and not allowed, or unknown."""
    try:
        found = addresses_of(host, port)
    except OSError as error:
        raise InvalidValueError(
            f"The host {host} cannot be found ({error.strerror or error}); expected a name that DNS knows."
        ) from error
    return first_vetted(host, found, allowed_networks)


def addresses_of(host: str, port: int) -> list[str]:
    """All addresses of a host, the preferred first. Raises OSError (socket.gaierror) when there are none."""
    if not host or any(ch in host for ch in "\r\n\0/@ "):
        raise OSError(0, "it is no host name")
    try:
        found = socket.getaddrinfo(host.encode("idna"), port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError(0, "it is no host name") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def first_vetted(host: str, addresses: Iterable[str], allowed_networks: Sequence[Network] = ()) -> str:
    """The first of these addresses that is public or allowed. Raises InvalidValueError when none is."""
    for address in addresses:
        if is_vetted(address, allowed_networks):
            return address
    # The same words for all of them: what is where in a private network is not to be found out by asking.
    raise InvalidValueError(
        f"{host} is not reached from the browser: it is no public address. If it is meant, whoever runs briefbox allows its network with BRIEFBOX_PRIVATE_NETWORKS."
    )


def is_vetted(address: str, allowed_networks: Sequence[Network] = ()) -> bool:
    """Whether an address is public, or in one of these networks."""
    ip = ip_address(address.partition("%")[0])
    inner = _inner(ip)
    if any(one in network for one in {ip, inner} for network in allowed_networks):
        return True
    return inner.is_global and not inner.is_multicast and ip.version == inner.version


def _inner(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one stands for; else the address itself."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip.teredo is not None:
        return ip.teredo[1]
    if any(ip in network for network in (*_NAT64, _COMPATIBLE)):
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip


class VettedTransport(httpx.HTTPTransport):
    """HTTP to vetted addresses only: each request goes to the address that was looked at, under the host's own name.

    A refusal is an InvalidValueError. Use it with `follow_redirects=False`, or each hop is vetted again.
    """

    def __init__(self, allowed_networks: Sequence[Network] = (), **options: object) -> None:
        """`options` are those of httpx.HTTPTransport."""
        super().__init__(**options)  # type: ignore[arg-type]
        self._allowed = tuple(allowed_networks)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it. Raises InvalidValueError, httpx.HTTPError."""
        url = request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        address = vetted_address(url.host, port, self._allowed)
        # The Host header was made from the name already; the certificate is checked against it, too.
        sent = httpx.Request(
            request.method,
            url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": url.host},
        )
        answer = super().handle_request(sent)
        answer.request = request
        return answer
