"""Which addresses are reached when somebody names a host in the browser."""

import socket
from ipaddress import ip_network
from threading import Thread
from typing import Any

import httpx
import pytest

from briefbox import net
from briefbox.errors import InvalidValueError, SettingsError
from briefbox.settings import load_settings
from tests.servers import free_port

NOT_PUBLIC = """
    127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 224.0.0.1 192.0.2.1 255.255.255.255
    ::1 :: fe80::1%eth0 fd00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 64:ff9b::7f00:1 2002:7f00:1:: ::127.0.0.1 2001:db8::1
"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_what_is_not_public_is_refused(address: str) -> None:
    assert not net.is_vetted(address)


@pytest.mark.parametrize("address", ["9.9.9.9", "93.184.216.34", "2620:fe::fe"])
def test_public_addresses_are_reached(address: str) -> None:
    assert net.is_vetted(address)


def test_an_allowed_network_is_reached_and_no_other() -> None:
    allowed = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert net.is_vetted("10.1.2.3", allowed)
    assert net.is_vetted("::ffff:10.1.2.3", allowed)
    assert net.is_vetted("fd00::1", allowed)
    assert not net.is_vetted("192.168.0.1", allowed)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "::1"])
def test_every_way_to_write_this_machine_is_refused_in_the_same_words(host: str) -> None:
    with pytest.raises(
        InvalidValueError, match="is not reached from the browser: it is no public address.*PRIVATE"
    ):
        net.vetted_address(host, 993)


@pytest.mark.parametrize("host", ["", "no such", "a\r\nb", "x.invalid", "a" * 300, "a..b"])
def test_no_host_is_said_so(host: str) -> None:
    with pytest.raises(InvalidValueError, match="cannot be found"):
        net.vetted_address(host, 993)


def test_of_several_addresses_the_first_public_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(0, 0, 0, "", (a, 993)) for a in ("10.0.0.1", "9.9.9.9", "8.8.8.8")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert net.vetted_address("mail.larkspur.example", 993) == "9.9.9.9"


def test_the_setting_takes_networks_with_commas_and_refuses_anything_else(tmp_path: Any) -> None:
    settings = load_settings(data_dir=tmp_path, private_networks="10.0.0.0/8, fd00::/8")
    assert [str(n) for n in settings.private_networks] == ["10.0.0.0/8", "fd00::/8"]
    with pytest.raises(SettingsError, match="PRIVATE_NETWORKS"):
        load_settings(data_dir=tmp_path, private_networks="the office")


def test_http_goes_to_the_vetted_address_under_the_hosts_name(monkeypatch: pytest.MonkeyPatch) -> None:
    port, heard = free_port(), []
    listener = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            heard.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    thread = Thread(target=serve)
    thread.start()
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **named: Any) -> Any:
        return real("127.0.0.1" if b"hooks" in bytes(str(host), "ascii") else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with httpx.Client(transport=net.VettedTransport([ip_network("127.0.0.0/8")])) as client:
        assert client.get(f"http://hooks.larkspur.example:{port}/x").text == "ok"
    thread.join(10)
    listener.close()
    assert f"Host: hooks.larkspur.example:{port}".encode().lower() in heard[0].lower()
    with httpx.Client(transport=net.VettedTransport()) as client, pytest.raises(InvalidValueError):
        client.get(f"http://hooks.larkspur.example:{port}/x")
