"""Who may ask the HTTP API, how many at once, and what is left behind: nothing."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed: pip install 'es4r-toolkit[serve]'")
pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'")

import anyio
from served import (
    EVENTS,
    GOOD,
    HEAD,
    LIMITS,
    PATIENCE,
    SPEAKER,
    VOICED,
    Served,
    dialogue,
    events_of,
    file_of,
    parts,
    refused,
    reply_threads,
    serving,
    voiced,
    wait_until,
)

from es4r_toolkit.errors import BackendError, ConfigError
from es4r_toolkit.inference import EmpathyResponder
from es4r_toolkit.serving.border import LOCAL, Border
from es4r_toolkit.serving.limits import Limits
from es4r_toolkit.serving.server import CONNECTIONS, bind


@pytest.fixture(scope="module")
def server(responder, tmp_path_factory) -> Served:
    with serving(responder, tmp_path_factory.mktemp("uploads"), LIMITS) as served:
        yield served


# -- who may ask -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localhost:8008", "[::1]:8008"])
def test_it_answers_to_its_own_names(server, host):
    assert server.ask("GET", "/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""])
def test_another_name_is_refused_so_that_no_page_can_rebind_its_own(server, host):
    answer = server.ask("GET", "/health", headers={"Host": host})
    assert (answer.status_code, answer.text) == (400, "Invalid host header")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
def test_a_page_of_another_origin_cannot_ask_and_gets_no_cors(server, origin):
    for answer in (
        server.post(dialogue(0.3), headers={"Origin": origin}),
        server.post(**parts([SPEAKER], ("a.wav", VOICED)), headers={"Origin": origin}),
        server.ask("OPTIONS", "/v1/replies", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}),
    ):
        refused(answer, "origin", "Origin")
        assert "access-control-allow-origin" not in answer.headers


def test_a_page_of_its_own_may_ask(server):
    assert server.ask("GET", "/health", headers={"Origin": server.url}).status_code == 200


def test_a_token_and_another_origin_where_they_are_asked_for(responder, tmp_path):
    page = "https://lab.example"
    border = Border([*LOCAL, "talk.example"], [page], "secret")
    with serving(responder, tmp_path, border=border) as server:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}, {"Authorization": "é"}):
            answer = server.post(dialogue(0.3), headers={name: value.encode() for name, value in given.items()})
            refused(answer, "token", "Authorization")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        refused(server.ask("GET", "/metrics"), "token")
        assert server.ask("GET", "/health").status_code == 200
        known = {"Authorization": "Bearer secret", "Origin": page, "Host": "talk.example"}
        answer = server.post(dialogue(0.3), headers=known)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == page
        asked = {"Origin": page, "Access-Control-Request-Method": "POST"}
        assert server.ask("OPTIONS", "/v1/replies", headers=asked).status_code == 200


# -- how many may ask --------------------------------------------------------------------------------------------------


@contextmanager
def taken_seat(server: Served) -> Iterator[None]:
    """A request whose body does not come to its end."""
    with closing(socket.create_connection(("127.0.0.1", server.port))) as line:
        line.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        wait_until(lambda: server.figure("es4r_waiting") == 1)
        yield


def test_who_finds_every_seat_taken_is_told_to_come_again(responder, tmp_path):
    with serving(responder, tmp_path, Limits(running=1, waiting=0)) as server:
        with taken_seat(server):
            for answer in (server.post(dialogue(0.3)), server.ask("GET", "/ready")):
                refused(answer, "busy", "the server")
                assert int(answer.headers["Retry-After"]) > 0
            assert server.ask("GET", "/health").status_code == 200
        wait_until(lambda: server.figure("es4r_waiting") == 0)
        assert server.ask("GET", "/ready").status_code == 200
        assert server.post(dialogue(0.3)).status_code == 200


def test_a_reply_that_takes_too_long_is_ended(responder, tmp_path):
    with serving(responder, tmp_path, Limits(reply_seconds=0.03)) as server:
        for accept in ("application/json", "audio/wav"):
            refused(server.post(dialogue(2.0, 2.0, 2.0), accept=accept), "timeout", "the reply", "within 0.03 s")
        stream = server.post(dialogue(2.0, 2.0, 2.0), accept=EVENTS)
        # What failed before the first event has a status of its own.
        fault = stream.json() if stream.status_code == 504 else events_of(stream.text)[-1][1]
        assert fault["code"] == "timeout"
        wait_until(lambda: not reply_threads())
        assert list(tmp_path.iterdir()) == []
        assert server.figure('es4r_rejected_total{reason="timeout"}') == 3


class Voice:
    """The responder's voice, or what a test makes of it."""

    def __init__(self, responder: EmpathyResponder, speak):
        self._voice = responder.pipeline.synthesis.voice
        self.sample_rate, self.style_dim, self.honours = self._voice.sample_rate, None, self._voice.honours
        self.synthesize = speak


@pytest.mark.parametrize("error", [BackendError("voice.safetensors", "is broken", "look"), RuntimeError("nobody knew")])
def test_a_stream_that_has_begun_ends_with_its_error(responder, tmp_path, caplog, error):
    def slow(*_: object) -> None:
        time.sleep(0.5)
        raise error

    with serving(responder.with_voice(Voice(responder, slow)), tmp_path, Limits(reply_seconds=5)) as server:
        events = events_of(server.post(dialogue(0.5), accept=EVENTS).text)
        assert events[0][0] == "transcript"
        name, fault = events[-1]
        assert (name, fault["code"], fault["status"]) == ("error", "internal", 500)
        assert server.figure('es4r_rejected_total{reason="internal"}') == 1
    assert str(error) in caplog.text


def test_what_fails_in_the_server_is_told_to_its_log_alone(responder, tmp_path, caplog):
    def broken(*_: object) -> None:
        raise BackendError(tmp_path / "voice.safetensors", "is broken", "look")

    def mad(*_: object) -> None:
        raise RuntimeError(f"{tmp_path}: nobody thought of this")

    for fault in (broken, mad):
        with serving(responder.with_voice(Voice(responder, fault)), tmp_path) as server:
            refused(server.post(dialogue(0.5)), "internal", "the server")
            assert server.ask("GET", "/health").status_code == 200
    assert "voice.safetensors: is broken" in caplog.text
    assert "nobody thought of this" in caplog.text


def test_a_dialogue_that_the_model_cannot_read_is_the_clients_to_mend(responder, tmp_path):
    with serving(responder, tmp_path, Limits(text_characters=20_000)) as server:
        answer = server.post(dialogue(0.3, text="so " * 5000))
        refused(answer, "invalid", "the dialogue", "longer than the model can read")


def test_without_a_recognizer_every_turn_needs_its_text(responder, tmp_path, monkeypatch):
    monkeypatch.setattr(responder.pipeline, "recognizer", None)
    with serving(responder, tmp_path) as server:
        assert server.ask("GET", "/v1/model").json()["recognizer"] is None
        answer = server.post(**parts([{"role": "speaker"}], ("a.wav", file_of(voiced(0.71)))))
        refused(answer, "invalid", "the dialogue", "without a transcript")


def test_connections_on_which_no_request_comes_to_its_head_s_end_are_closed(server):
    half = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    with ExitStack() as lines:
        for _ in range(CONNECTIONS + 4):
            line = lines.enter_context(closing(socket.create_connection(("127.0.0.1", server.port))))
            line.sendall(half)
        wait_until(lambda: server.ask("GET", "/health").status_code == 200)


def test_who_was_answered_once_and_sends_half_a_request_is_not_waited_for(server):
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)) as line:
        line.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert line.recv(65536).startswith(b"HTTP/1.1 200")
        line.sendall(b"GET /health HTTP/1.1\r\n")
        while line.recv(65536):
            pass


# -- what stays behind -------------------------------------------------------------------------------------------------


def test_the_log_holds_nothing_that_a_client_wrote(server, caplog):
    with caplog.at_level(logging.DEBUG, logger="es4r_toolkit.serving"):
        asked = dialogue(0.3, text="whispered")
        server.ask("POST", "/v1/replies?password=hunter2", json=asked)
        server.ask("GET", "/whispered")
        wait_until(lambda: "GET other 404" in caplog.text)
    assert "POST /v1/replies 200" in caplog.text
    assert "GET other 404 not_found" in caplog.text
    assert "hunter2" not in caplog.text
    assert "whispered" not in caplog.text


def test_many_who_go_away_leave_nothing(server):
    body = GOOD.encode()
    for cut in (0, 10, len(body) // 2, len(body) - 1, len(body)):
        with closing(socket.create_connection(("127.0.0.1", server.port))) as line:
            line.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:cut])
    wait_until(lambda: not reply_threads() and server.figure("es4r_in_flight") == 1)
    assert server.figure("es4r_waiting") == 0
    assert list(server.folder.iterdir()) == []


def test_a_stream_that_nobody_reads_is_given_up(responder, tmp_path):
    """Its client keeps the line open and takes nothing: the whole of it, and its error, are bounded in time."""
    from es4r_toolkit.serving.app import create_app

    app = create_app(responder, Limits(reply_seconds=1.0), folder=tmp_path)
    body = GOOD.encode()
    headers = {"host": "localhost", "content-type": "application/json", "accept": EVENTS}
    scope = {"type": "http", "method": "POST", "path": "/v1/replies", "scheme": "http", "query_string": b""}
    scope |= {"headers": [(name.encode(), value.encode()) for name, value in headers.items()], "root_path": ""}

    async def ask() -> None:
        sent = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict:
            if (message := next(sent, None)) is None:
                await anyio.sleep_forever()
            return message

        async def send(message: dict) -> None:
            if message["type"] == "http.response.body":
                await anyio.sleep_forever()

        async with app.router.lifespan_context(app):
            with anyio.fail_after(PATIENCE):
                await app(scope, receive, send)

    anyio.run(ask)
    assert reply_threads() == []


def test_a_taken_port_is_a_fault_that_is_named():
    with bind("127.0.0.1", 0) as bound:
        bound.listen()
        with pytest.raises(ConfigError, match="cannot be bound"):
            bind("127.0.0.1", bound.getsockname()[1])


@pytest.mark.parametrize("name", ["body_bytes", "turns", "reply_seconds", "running"])
def test_limits_are_positive(name):
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: 0})
