"""What goes wrong between briefbox and the server, met through the engine: each is one sentence."""

import logging
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from briefbox.errors import ModelError, ServerAwayError
from models import openai_client
from models.openai_engine import OpenAIEngine
from tests.models.conftest import make_request
from tests.models.openai_server import Asked, OpenAIServer, Reply, brief, completion, error
from tests.models.test_openai_engine import engine_for
from tests.servers import free_port, make_certificate

KEY = "sk-secret-4711"


def refused(script: Any, models: Any = ("tiny",), **changes: Any) -> tuple[str, OpenAIServer]:
    """The sentence with which one email fails, and the server that was asked."""
    with OpenAIServer(script, models=models) as server, pytest.raises(ModelError) as caught:
        engine_for(server, **changes).brief([make_request()])
    assert len(str(caught.value)) < 700
    return str(caught.value), server


# --- tried again


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(status: int) -> None:
    with OpenAIServer([error(status, "busy"), brief()]) as server:
        assert engine_for(server).brief([make_request()])[0].headline
        assert len(server.chats) == 2


def test_a_connection_that_breaks_is_tried_again() -> None:
    with OpenAIServer([Reply(hang_up=True), brief()]) as server:
        assert engine_for(server).brief([make_request()])[0].headline


@pytest.mark.parametrize("as_date", [False, True])
def test_the_pause_that_the_server_asks_for_is_kept(as_date: bool) -> None:
    header = formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    with OpenAIServer([Reply({}, 429, {"retry-after": header}), brief()]) as server:
        started = time.monotonic()
        engine_for(server).brief([make_request()])
        assert time.monotonic() - started >= 0.9


def test_a_pause_without_end_is_bounded() -> None:
    assert openai_client._retry_after("86400") == 86400
    assert openai_client._retry_after("soon") is None
    with OpenAIServer([Reply({}, 429, {"retry-after": "86400"}), brief()]) as server:
        started = time.monotonic()
        with pytest.raises(ServerAwayError, match="answered 429"):
            engine_for(server, openai_timeout_seconds=0.3).brief([make_request()])
        assert time.monotonic() - started < 2


def test_a_server_that_stays_busy_is_away_after_three_timeouts() -> None:
    with OpenAIServer([error(503, "Loading model")]) as server:
        started = time.monotonic()
        with pytest.raises(ServerAwayError, match=r"answered 503 \(Loading model\)") as caught:
            engine_for(server, openai_timeout_seconds=0.5).brief([make_request()])
        assert time.monotonic() - started < 3
    assert not caught.value.permanent


def test_a_slow_answer_ends_at_the_timeout() -> None:
    with OpenAIServer([Reply({}, delay=1.5)]) as server, pytest.raises(ServerAwayError, match="no answer"):
        engine_for(server, openai_timeout_seconds=0.2).brief([make_request()])


def test_an_answer_that_trickles_in_ends_at_the_timeout_too() -> None:
    with OpenAIServer([Reply(b"x" * 5000, drip=0.05)]) as server:
        started = time.monotonic()
        with pytest.raises(ServerAwayError, match="too long to arrive"):
            # Far longer than the first byte takes on a busy machine, and far shorter than the whole.
            engine_for(server, openai_timeout_seconds=1.5).brief([make_request()])
        assert time.monotonic() - started < 15


def test_a_batch_never_takes_longer_than_it_may() -> None:
    with OpenAIServer([error(503, "busy")]) as server, pytest.raises(ServerAwayError):
        started = time.monotonic()
        engine_for(server, batch_timeout_seconds=1).brief([make_request()] * 3)
    assert time.monotonic() - started < 4


# --- not tried again


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_its_setting_and_not_the_key(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    script = [error(status, f"Incorrect API key provided: {KEY}.")]
    message, server = refused(script, openai_api_key=KEY)
    assert "BRIEFBOX_OPENAI_API_KEY_FILE" in message
    assert "Incorrect API key provided: ***" in message
    assert server.chats[0].headers["authorization"] == f"Bearer {KEY}"
    assert len(server.chats) == 1
    assert KEY not in message + caplog.text


def test_a_key_with_a_line_break_is_refused_unshown() -> None:
    with OpenAIServer() as server, pytest.raises(ModelError, match="printable ASCII") as caught:
        engine_for(server, openai_api_key=f"{KEY}\nX-Admin: 1")
    assert KEY not in str(caught.value)


def test_an_unknown_model_is_answered_with_those_that_are_there() -> None:
    message, _ = refused(
        [error(404, "The model `nix` does not exist.")], models=("tiny", "large"), openai_model="nix"
    )
    assert "has no model nix, only tiny, large; set BRIEFBOX_OPENAI_MODEL" in message


def test_a_wrong_path_is_told_apart_from_a_wrong_model() -> None:
    wanted = pytest.raises(ModelError, match=r"answered 404 .*BRIEFBOX_OPENAI_URL, which ends in /v1")
    with OpenAIServer() as server, wanted:
        engine_for(server, openai_url=server.url.removesuffix("/v1")).warm_up()


def test_a_redirect_is_not_followed() -> None:
    with OpenAIServer() as other:
        location = {"location": f"{other.url}/chat/completions"}
        message, _ = refused([Reply({}, 307, location)], openai_api_key=KEY)
        assert other.asked == []
    assert "redirect, which is not followed; set BRIEFBOX_OPENAI_URL" in message


def test_an_answer_without_end_is_not_read_to_the_end() -> None:
    message, _ = refused([Reply(b" " * (openai_client.MAX_RESPONSE_BYTES + 2))])
    assert "more than 8000000 bytes" in message


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"", b"\xff\xfe", b"[" * 100_000])
def test_an_answer_that_is_no_json_is_said_to_be_none(body: bytes) -> None:
    message, _ = refused([Reply(body)])
    assert "answered with something that is no JSON" in message


def test_an_answer_of_another_type_is_refused() -> None:
    message, _ = refused([Reply(["a"])])
    assert "answered with list, expected an object" in message


def test_a_senseless_request_shows_the_servers_words_shortened() -> None:
    message, server = refused([error(400, "bad " * 500)])
    assert "answered 400 (bad bad" in message
    assert len(server.chats) == 1


def test_an_error_that_repeats_the_email_is_not_quoted() -> None:
    def echo(asked: Asked) -> Reply:
        return error(400, f"cannot read {asked.body['messages']}")

    text = "My parcel 4711 is late. Where is it?"
    message, _ = refused(echo)
    assert text not in message


# --- addresses


@pytest.mark.parametrize("url", ["ftp://host/v1", "host:8000", "http://", "/v1", ""])
def test_an_address_that_is_none_is_refused_with_an_example(url: str) -> None:
    with OpenAIServer() as server, pytest.raises(ModelError, match="an example is http://127.0.0.1:8000/v1"):
        engine_for(server, openai_url=url)


def test_a_password_in_the_address_is_refused_unshown() -> None:
    with OpenAIServer() as server, pytest.raises(ModelError, match="holds a password") as caught:
        engine_for(server, openai_url="https://user:hunter2@host/v1")
    assert "hunter2" not in str(caught.value)


def test_a_server_that_is_not_there_is_said_to_be_away_at_the_start() -> None:
    with OpenAIServer() as server:
        engine = engine_for(server, openai_url=f"http://127.0.0.1:{free_port()}/v1", openai_timeout_seconds=1)
        with pytest.raises(ServerAwayError, match=r"could not be used \(.*is it running\?"):
            engine.warm_up()


def test_a_proxy_of_the_environment_is_not_asked_for_a_server_beside_briefbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with OpenAIServer() as server:
        engine_for(server).warm_up()


def test_a_certificate_that_does_not_verify_is_not_accepted(tmp_path: Path) -> None:
    import ssl
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    certificate = make_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.cert_file, certificate.key_file)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as https, OpenAIServer() as server:
        https.socket = tls.wrap_socket(https.socket, server_side=True)
        Thread(target=https.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        engine: OpenAIEngine = engine_for(
            server, openai_url=f"https://127.0.0.1:{https.server_address[1]}/v1"
        )
        started = time.monotonic()
        with pytest.raises(ModelError, match="does not verify"):
            engine.warm_up()
        assert time.monotonic() - started < 3
        https.shutdown()


def test_empty_choices_are_no_brief() -> None:
    message, server = refused([Reply({"choices": []})])
    assert "no choices" in message
    assert len(server.chats) == 2


def test_no_text_is_no_brief() -> None:
    message, _ = refused([completion(None)])
    assert "it has no text" in message
