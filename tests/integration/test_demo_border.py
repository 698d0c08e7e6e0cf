"""The border of es4r demo, asked without a browser: what is refused, what is kept, and what is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
from typer.testing import CliRunner

from es4r_toolkit.cli import app

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'es4r-toolkit[demo]'")
pytest.importorskip("espeakng_loader", reason="espeak-ng is not installed: pip install 'es4r-toolkit[espeak]'")

from demoed import ask, uploads

UPLOAD, JOIN = "gradio_api/upload", "gradio_api/queue/join"
CHOICES = ["small demo model (preset: plus)", "the model's own voice", "automatic"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The page, served with the shipped model."""
    from es4r_toolkit.demo.models import offer
    from es4r_toolkit.demo.serving import serving

    with serving(offer([])) as address:
        yield address


def refused(status: int, reason: str, *asked: object, **headers: str) -> None:
    """What is asked so is not answered, for this reason."""
    with pytest.raises(HTTPError) as raised:
        ask(*asked, **headers)
    told = raised.value.read().decode()
    assert (raised.value.code, reason in told) == (status, True), told


def uploaded(address: str, content: bytes, kind: str = "multipart/form-data; boundary=x", name: str = "") -> Path:
    """Where an upload is kept."""
    name = name or 'filename="a.wav"'
    body = f'--x\r\nContent-Disposition: form-data; name="files"; {name}\r\n\r\n'.encode() + content + b"\r\n--x--\r\n"
    (path,) = json.loads(ask(address, UPLOAD, body, **{"Content-Type": kind}))
    return Path(path)


# -- who may ask, and for what -----------------------------------------------------------------------------------------


def test_the_page_answers_to_its_address_and_not_to_a_name_of_another_page(address):
    port = address.rstrip("/").rpartition(":")[2]
    for host in ("localhost", f"127.0.0.1:{port}", f"[::1]:{port}", "192.0.2.7"):
        assert b"<html" in ask(address, "", Host=host)
    for host in ("evil.example", f"127.0.0.1.evil.example:{port}", "[::1"):
        refused(400, "call it by its address", address, "", Host=host)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_a_page_of_another_origin_cannot_ask(address, origin):
    body = {"fn_index": 0, "session_hash": "s", "data": [None, None, "", *CHOICES]}
    refused(403, "other origins", address, JOIN, body, Origin=origin)
    refused(403, "other origins", address, UPLOAD, b"", Origin=origin)


def test_the_page_itself_can_ask_behind_a_proxy_too(address):
    assert ask(address, "config", Origin=address.rstrip("/"))
    assert ask(address, "config", Origin="https://talk.example", **{"Sec-Fetch-Site": "same-origin"})


def test_nothing_is_offered_to_programs(address):
    described = json.loads(ask(address, "gradio_api/info"))
    assert described == {"named_endpoints": {}, "unnamed_endpoints": {}}
    call = {"data": [None, None, "I lost my job.", *CHOICES]}
    for path in ("call/answer", "call/v2/answer", "run/answer", "api/answer"):
        refused(403, "programs ask es4r serve", address, f"gradio_api/{path}", call)
    refused(403, "programs ask es4r serve", address, "gradio_api/call/answer/0123")


# -- what is sent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    [
        '{"path": "ADDRESS"}',
        '{"p\\u0061th": "ADDRESS"}',
        '{"path": "ADDRESS", "path": "/tmp/a.wav"}',
        '{"path": ["ADDRESS"]}',
    ],
)
def test_nothing_is_fetched_from_an_address_that_a_message_names(address, file):
    with socket.socket() as elsewhere:
        elsewhere.bind(("127.0.0.1", 0))
        elsewhere.listen()
        elsewhere.settimeout(0.2)
        url = f"http:\\/\\/127.0.0.1:{elsewhere.getsockname()[1]}\\/a.wav"
        file = file.replace("ADDRESS", url)[:-1] + ', "meta": {"_type": "gradio.FileData"}}'
        data = f'[null, {file}, "", {json.dumps(CHOICES)[1:-1]}]'
        body = f'{{"fn_index": 0, "session_hash": "s", "data": {data}}}'.encode()
        for encoded in (body, body.decode().encode("utf-16")):
            refused(403, "Nothing is fetched", address, JOIN, encoded)
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_a_message_that_is_no_json_or_too_long_is_refused(address):
    for body in (b"", b"{", b"\xff", b"[" * 50_000, b'{"a":' * 10_000):
        refused(400, "is not JSON", address, JOIN, body)
    refused(413, "too long", address, JOIN, [" " * 65536])


def test_files_of_the_server_are_neither_given_nor_taken(address):
    refused(403, "", address, "gradio_api/file=/etc/passwd")
    refused(403, "Nothing is fetched", address, "gradio_api/file=http://127.0.0.1:1/secret")
    config = json.loads(ask(address, "config"))
    send = next(one for one in config["dependencies"] if len(one["inputs"]) == 6)
    stolen = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    call = {"fn_index": send["id"], "session_hash": "thief", "data": [None, stolen, "", *CHOICES]}
    ask(address, JOIN, call)
    answer = ask(address, "gradio_api/queue/data?session_hash=thief").decode()
    assert '"success":false' in answer
    assert "Traceback" not in answer
    assert str(Path(__file__).parents[2]) not in answer
    assert Path("/etc/passwd").exists()


# -- uploads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        'filename\t="secret.wav"',
        'filename ="secret.wav"',
        'FILENAME="secret.wav"',
        "filename=secret.wav; filename*=''x",
    ],
)
@pytest.mark.parametrize("boundary", ["boundary=x", "BOUNDARY=x", "boundary = x", 'Boundary="x"; charset=undefined'])
def test_no_name_of_an_upload_reaches_the_disk(address, name, boundary):
    kept = uploaded(address, b"RIFF", f"multipart/form-data; {boundary}", name)
    assert re.match(r"recording-[0-9a-f]{16}", kept.name)
    assert (kept.read_bytes(), "secret" in str(uploads())) == (b"RIFF", False)
    kept.unlink()


def test_two_uploads_of_one_sound_are_two_files(address):
    first, second = uploaded(address, b"RIFF"), uploaded(address, b"RIFF")
    first.unlink()
    assert second.read_bytes() == b"RIFF"
    second.unlink()


def test_an_upload_that_is_not_one_file_is_refused(address):
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="secret.wav"\r\n\r\nRIFF\r\n'
    whole = part + b"--x--\r\n"
    kind = "multipart/form-data; boundary="
    for body, given in (
        (whole, "multipart/form-data"),
        (whole, f"{kind}y"),
        (part, f"{kind}x"),
        (part + whole, f"{kind}x"),
    ):
        refused(400, "not one recording", address, UPLOAD, body, **{"Content-Type": given})
    assert uploads() == []


def test_a_large_upload_is_refused_before_it_is_kept(address):
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n' + bytes(21 * 1024**2)
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(413, "The recording is over the limit of 20 MB", address, UPLOAD, body, **kind)
    assert uploads() == []


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_serves_ends_and_leaves_nothing(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "es4r_toolkit.cli", "demo", "--port", str(port)]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment.pop("GRADIO_TEMP_DIR", None)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as process:
        assert process.stdout.readline().startswith(f"http://127.0.0.1:{port}/  (1 models, 0 examples")
        page = ask(f"http://127.0.0.1:{port}/", "").decode()
        assert "No example dialogues are here" in page
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert [path for path in tmp_path.iterdir() if path.name.startswith("es4r-demo")] == []


def test_a_missing_gradio_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("es4r_toolkit.demo.serving.find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 1
    assert "gradio: is not installed; pip install 'es4r-toolkit[demo]'" in result.output


def test_a_port_that_is_taken_is_named():
    from es4r_toolkit.demo.models import offer
    from es4r_toolkit.demo.serving import serving
    from es4r_toolkit.errors import ConfigError

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: cannot be served"), serving(offer([]), port=port):
            pass
