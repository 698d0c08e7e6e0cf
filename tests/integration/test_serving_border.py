"""The border of the HTTP API: what is refused, and in which words."""

from __future__ import annotations

import json
import os
import socket
import stat
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed: pip install 'es4r-toolkit[serve]'")
pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'")

from served import (
    GOOD,
    HEAD,
    LIMITS,
    PATIENCE,
    SPEAKER,
    VOICED,
    Served,
    dialogue,
    file_of,
    parts,
    refused,
    serving,
    turn,
    voiced,
)

from es4r_toolkit.data import audio
from es4r_toolkit.serving import uploads
from es4r_toolkit.serving.limits import Limits


@pytest.fixture(scope="module")
def server(responder, tmp_path_factory) -> Served:
    with serving(responder, tmp_path_factory.mktemp("uploads"), LIMITS) as served:
        yield served


# -- JSON that is none, or too much ------------------------------------------------------------------------------------


def with_options(options: str) -> str:
    return GOOD[:-1] + f', "options": {options}}}'


BROKEN_JSON = {
    "nothing": (b"", "malformed", "is empty"),
    "no JSON": (b"{turns}", "malformed", "is not JSON"),
    "a number for the whole": (b"7", "invalid", "valid dictionary"),
    "cut short": (GOOD[:-5].encode(), "malformed", "is not JSON"),
    "no UTF-8": (b'{"turns": "\xff"}', "malformed", "is not UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), "malformed", "is not UTF-8"),
    "a key twice": (b'{"turns": [], "turns": []}', "malformed", "'turns' twice"),
    "deep": (b"[" * 400 + b"]" * 400, "invalid", "valid dictionary"),
    "deeper than Python recurses": (b'{"a":' * 400 + b"[" * 90 + b"1", "malformed", ""),
    "many values": (b"[" + b"[]," * 600 + b"1]", "too_large", "more than 500 values"),
    "NaN": (with_options('{"temperature": NaN}').encode(), "malformed", "is nan"),
    "infinity": (with_options('{"temperature": -Infinity}').encode(), "malformed", "is -inf"),
    "a number beyond any float": (with_options('{"temperature": 1e999}').encode(), "malformed", "is inf"),
    "a number of a thousand digits": (with_options('{"top_k": 1' + "0" * 1000 + "}").encode(), "invalid", ""),
    "a number of five thousand digits": (with_options('{"top_k": 1' + "0" * 5000 + "}").encode(), "malformed", ""),
    "half a character": (GOOD.replace("I moved", "\\ud800").encode(), "malformed", "half a character"),
}


@pytest.mark.parametrize("case", BROKEN_JSON.values(), ids=BROKEN_JSON.keys())
def test_broken_json_is_refused(server, case):
    body, code, problem = case
    refused(server.post(content=body, headers={"Content-Type": "application/json"}), code, problem=problem)


def test_ten_thousand_brackets_are_no_stack_overflow(responder, tmp_path):
    with serving(responder, tmp_path, Limits(values=10**7)) as server:
        for body in (b"[" * 100_000, b'{"a":' * 100_000, b"[" * 50_000 + b"]" * 50_000):
            answer = server.post(content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code in (400, 422), answer.text


BROKEN_SCHEMA = {
    "no turns": ({}, "turns", "required"),
    "empty": ({"turns": []}, "turns", "at least 1"),
    "unknown key": ({"turns": [], "path": "/etc/passwd"}, None, ""),
    "unknown role": ({"turns": [{**SPEAKER, "role": "judge", "audio": "AAAA"}]}, "turns[0].role", "'speaker'"),
    "a number as text": ({"turns": [{**SPEAKER, "text": 7, "audio": "AAAA"}]}, "turns[0].text", "string"),
    "no audio": ({"turns": [SPEAKER]}, "turns[0].audio", "required"),
    "empty audio": ({"turns": [{**SPEAKER, "audio": ""}]}, "turns[0].audio", "at least 1"),
    "no base64": ({"turns": [{**SPEAKER, "audio": "a b"}]}, "turns[0].audio", "is not base64"),
    "no speaker": ({"turns": [turn(b"RIFF", role="listener")]}, "the body", "no turn of the speaker"),
    "too many turns": ({"turns": [turn(b"RIFF")] * 5}, "turns", "over the limit of 4"),
    "a long text": ({"turns": [turn(b"RIFF", text="a" * 101)]}, "turns[0].text", "over the limit of 100"),
}


@pytest.mark.parametrize("case", BROKEN_SCHEMA.values(), ids=BROKEN_SCHEMA.keys())
def test_what_breaks_the_schema_is_named(server, case):
    body, item, problem = case
    refused(server.post(body), "invalid", item, problem)


OPTIONS = {
    "strategy": ("angry", "'angry'"),
    "unit": ("word", "'sentence'"),
    "temperature": (-1, "greater than or equal to 0"),
    "top_k": (1.5, "integer"),
    "top_p": (0, "greater than 0"),
    "repetition_penalty": ("1", "number"),
    "max_new_tokens": (10**9, "not permitted"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_out_of_bounds_are_named(server, name):
    value, problem = OPTIONS[name]
    asked = {"turns": [turn(file_of(voiced(0.3)))], "options": {name: value}}
    refused(server.post(asked), "invalid", f"options.{name}", problem)


def test_what_a_client_wrote_is_repeated_in_part_and_on_one_line(server):
    fault = server.post({"turns": [], "x\ny" * 200: 1}).json()
    assert len(fault["item"]) < 250
    assert "\n" not in fault["item"]


# -- recordings --------------------------------------------------------------------------------------------------------

nan = np.full(800, np.nan, dtype=np.float32)
RECORDINGS = {
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "media_type", "is none of WAV"),
    "AIFF": (file_of(voiced(0.2), format="AIFF"), "media_type", "is none of WAV"),
    "text": (b"#!/bin/sh\nexit\n", "media_type", "is none of WAV"),
    "one byte": (b"R", "media_type", "is none of WAV"),
    "nothing": (b"", "media_type", "is none of WAV"),
    "a header alone": (VOICED[:44], "invalid", ""),
    "cut short": (VOICED[:-100], "invalid", "holds"),
    "no samples": (file_of(np.zeros(0)), "invalid", "no samples"),
    "NaN": (file_of(nan, subtype="FLOAT"), "invalid", "NaN"),
    "far too loud": (file_of(np.full(800, 1e6, dtype=np.float32), subtype="FLOAT"), "invalid", "amplitude"),
    "too long": (file_of(voiced(3.5), subtype="ULAW"), "invalid", "over the limit of 3 s"),
    "hours in a few bytes": (file_of(np.zeros(16000 * 600), format="FLAC"), "invalid", "over the limit of 3 s"),
    "a rate of 192 kHz": (file_of(voiced(0.1), 192000), "invalid", "sample rate"),
    "rubbish after ID3": (b"ID3" + bytes(range(256)) * 4, "invalid", "read"),
    "rubbish after fLaC": (b"fLaC" + bytes(range(256)) * 4, "invalid", ""),
    "rubbish after OggS": (b"OggS" + bytes(range(256)) * 4, "invalid", ""),
    "rubbish after RIFF": (b"RIFF\x00\x00\x00\x00WAVE" + bytes(range(256)) * 4, "invalid", ""),
}


@pytest.mark.parametrize("case", RECORDINGS.values(), ids=RECORDINGS.keys())
def test_a_recording_is_refused_by_its_content_and_called_by_the_clients_own_name(server, case):
    content, code, problem = case
    if content:
        refused(server.post({"turns": [turn(content)]}), code, "turns[0].audio", problem)
    answer = server.post(**parts([SPEAKER], ("holiday.wav", content)))
    refused(answer, code, "audio[0]", problem)
    assert list(server.folder.iterdir()) == []


def test_all_recordings_together_are_bounded_too(server):
    answer = server.post(**parts([SPEAKER] * 2, *[("a.wav", file_of(voiced(2.9), subtype="ULAW"))] * 2))
    refused(answer, "invalid", "audio[1]", "longer than 5 s")


NAMES = ["../../../../tmp/es4r-escaped.wav", "/tmp/es4r-escaped.wav", "a\x00b", "x" * 300, ""]


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name[:12]) for name in NAMES])
def test_a_file_name_never_reaches_the_file_system(server, monkeypatch, name):
    seen = []

    def note(path: str, *rest: object, **more: object) -> object:
        seen.append((Path(path), stat.S_IMODE(os.stat(path).st_mode)))
        return audio.load(path, *rest, **more)

    monkeypatch.setattr(uploads, "load", note)
    body = (
        b'--b\r\nContent-Disposition: form-data; name="dialogue"\r\n\r\n'
        + json.dumps({"turns": [SPEAKER]}).encode()
        + b'\r\n--b\r\nContent-Disposition: form-data; name="audio"; filename="'
        + name.replace("\x00", "%00").encode()
        + b'"\r\nContent-Type: ../../etc\r\n\r\n'
        + file_of(voiced(0.3))
        + b"\r\n--b--\r\n"
    )
    answer = server.post(content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 200, answer.text
    ((path, mode),) = seen
    assert path.parent == server.folder
    assert path.name.startswith("turn-")
    assert path.suffix == ""
    assert mode == 0o600
    assert not Path("/tmp/es4r-escaped.wav").exists()
    assert list(server.folder.iterdir()) == []


# -- multipart ---------------------------------------------------------------------------------------------------------

FORM = "multipart/form-data; boundary=b"
WRITTEN = b'--b\r\nContent-Disposition: form-data; name="dialogue"\r\n\r\n{"turns": []}\r\n'
MULTIPART = {
    "no boundary": (b"", "multipart/form-data", "malformed", "the body"),
    "nothing": (b"", FORM, "invalid", "dialogue"),
    "rubbish": (b"rubbish", FORM, "malformed", "the body"),
    "no end": (WRITTEN, FORM, "invalid", "dialogue"),
    "no name": (b"--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--\r\n", FORM, "malformed", "the body"),
    "a part too many": (WRITTEN * 2 + b"--b--\r\n", FORM, "malformed", "the body"),
    "another part": (WRITTEN.replace(b"dialogue", b"dialog") + b"--b--\r\n", FORM, "invalid", "dialog"),
    "no turns": (WRITTEN + b"--b--\r\n", FORM, "invalid", "dialogue.turns"),
    "no codec of text": (
        WRITTEN.replace(b"dialogue", b"\xe9"),
        f"{FORM}; charset=undefined",
        "malformed",
        "Content-Type",
    ),
    "UTF-16": (WRITTEN.decode().encode("utf-16"), f"{FORM}; Charset=utf-16", "malformed", "Content-Type"),
    "a name that is not UTF-8": (WRITTEN.replace(b"dialogue", b"\xe9") + b"--b--\r\n", FORM, "invalid", "\xe9"),
    "half a JSON": (WRITTEN.replace(b"[]}", b"[") + b"--b--\r\n", FORM, "malformed", "dialogue"),
}


@pytest.mark.parametrize("case", MULTIPART.values(), ids=MULTIPART.keys())
def test_broken_multipart_is_refused(server, case):
    body, kind, code, item = case
    refused(server.post(content=body, headers={"Content-Type": kind}), code, item)


def test_each_turn_has_one_recording(server):
    for count in (0, 2):
        files = [("a.wav", VOICED)] * count
        answer = server.post(
            files=[("dialogue", (None, json.dumps({"turns": [SPEAKER]}))), *(("audio", f) for f in files)]
        )
        refused(answer, "invalid", "audio", f"stands {count} times, and the dialogue has 1 turns")


# -- HTTP --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": ""},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_a_body_of_another_type_is_refused(server, headers):
    refused(server.post(content=GOOD, headers=headers), "media_type")


def test_a_form_that_there_is_not_is_refused(server):
    refused(server.post(dialogue(0.3), accept="image/png, text/html;q=0.9"), "not_acceptable", "Accept")


@pytest.mark.parametrize("path", ["/", "/v1/replies/", "/v1", "/../etc/passwd", "/docs/x", "/v2/replies"])
def test_another_address_is_not_found(server, path):
    refused(server.ask("POST", path, content=GOOD), "not_found")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_another_method_is_refused(server, method):
    answer = server.ask(method, "/v1/replies")
    refused(answer, "method")
    assert answer.headers["Allow"] == "POST"


def test_a_large_body_is_refused_whatever_length_it_declares(server):
    large = b" " * (LIMITS.body_bytes + 1)
    pieces = (large[place : place + 10_000] for place in range(0, len(large), 10_000))
    for content in (large, pieces):
        headers = {"Content-Type": "application/json"}
        refused(server.post(content=content, headers=headers), "too_large", "the body")
    form = file_of(np.zeros(LIMITS.body_bytes // 2))
    refused(server.post(**parts([SPEAKER], ("a.wav", form))), "too_large", "the body")


def spoken_to(server: Served, content: bytes) -> bytes:
    """What comes back to bytes that are sent as they stand."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)) as line:
        line.sendall(content)
        return b"".join(iter(lambda: line.recv(65536), b""))


def test_a_body_that_does_not_come_is_not_waited_for(server):
    answer = spoken_to(server, HEAD + b"Content-Length: 1000\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"slow"' in answer


@pytest.mark.parametrize(
    "content",
    [
        b"rubbish\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        HEAD + b"Content-Length: -1\r\n\r\n{}",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffffffff\r\n",
        HEAD + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /v1/replies HTTP/1.1\r\n\r\n",
    ],
)
def test_broken_http_is_a_bad_request(server, content):
    answer = spoken_to(server, content)
    assert answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert b"Traceback" not in answer
    assert server.ask("GET", "/health").status_code == 200
