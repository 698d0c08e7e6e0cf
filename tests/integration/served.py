"""A server of this process on a free port, and a client that looks at every answer for what must not be in it."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import soundfile

from es4r_toolkit.inference import SHIPPED_MODEL, EmpathyResponder
from es4r_toolkit.serving.app import create_app
from es4r_toolkit.serving.border import Border
from es4r_toolkit.serving.faults import KINDS
from es4r_toolkit.serving.limits import Limits
from es4r_toolkit.serving.server import bind, server_of

LIMITS = Limits(
    body_bytes=600_000, values=500, turns=4, text_characters=100, turn_seconds=3, seconds=5, upload_seconds=0.5
)
SPEAKER = {"role": "speaker", "text": "I moved house."}
EVENTS = "text/event-stream"
PATIENCE = 60.0  # seconds; other tests may share the machine
RATE = 16000


@dataclass(frozen=True)
class Served:
    """A running server, and where its recordings lie while they are decoded."""

    url: str
    folder: Path
    stop: Callable[[], None]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ask(self, method: str, path: str, **options: object) -> httpx2.Response:
        """A request; no answer may tell where files lie or what the code is."""
        answer = httpx2.request(method, self.url + path, timeout=PATIENCE, **options)
        check(answer.headers, answer.text, self.folder)
        return answer

    def post(self, body: object = None, accept: str = "application/json", **options: object) -> httpx2.Response:
        """A request for a reply."""
        given = {} if body is None else {"json": body}
        headers = {"Accept": accept, **options.pop("headers", {})}
        return self.ask("POST", "/v1/replies", headers=headers, **given, **options)

    def figure(self, name: str) -> float:
        """A line of /metrics; 0 where it is not there yet."""
        lines = self.ask("GET", "/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


def check(headers: object, text: str, folder: Path) -> None:
    """No path, no stack trace."""
    whole = f"{dict(headers)} {text}"
    for secret in (str(folder), str(SHIPPED_MODEL), "turn-", "Traceback", 'File "', "site-packages", "/es4r_toolkit"):
        assert secret not in whole, f"{secret} stands in {whole[:500]}"


@contextmanager
def serving(
    responder: EmpathyResponder, folder: Path, limits: Limits | None = None, border: Border | None = None
) -> Iterator[Served]:
    """A server that runs until the block ends, its replies with it."""
    app = create_app(responder, limits, border, folder)
    with bind("127.0.0.1", 0) as bound:
        server = server_of(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="server")
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join(PATIENCE)

        try:
            wait_until(lambda: server.started)
            yield Served(f"http://127.0.0.1:{bound.getsockname()[1]}", folder, stop)
        finally:
            stop()
    assert not thread.is_alive()
    assert reply_threads() == []


def reply_threads() -> list[str]:
    """Threads that write or speak a reply."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("reply")]


def wait_until(true: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Seconds until it was so."""
    began = time.perf_counter()
    while not true():
        assert time.perf_counter() - began < seconds, "it never came to be"
        time.sleep(0.002)
    return time.perf_counter() - began


def voiced(seconds: float, index: int = 0, rate: int = RATE) -> np.ndarray:
    """A voiced sound that swells and falls."""
    time = np.arange(round(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * (110 + 15 * index) * partial * time) / partial for partial in range(1, 12))
    return 0.2 * sound * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)) / 2


def file_of(samples: np.ndarray, rate: int = RATE, **options: str) -> bytes:
    """Samples as a file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **{"format": "WAV", **options})
    return buffer.getvalue()


def dialogue(*lengths: float, text: str = "It was on the phone.", **options: object) -> dict[str, object]:
    """A dialogue as JSON; the last turn is the speaker's."""
    turns = [
        {
            "role": "speaker" if (len(lengths) - place) % 2 else "listener",
            "text": f"{text} {place}",
            "audio": base64.b64encode(file_of(voiced(seconds, place))).decode(),
        }
        for place, seconds in enumerate(lengths)
    ]
    return {"turns": turns, "options": options}


def parts(turns: Sequence[dict], *files: tuple[str, bytes], **options: object) -> dict[str, object]:
    """The same as multipart: ``files`` are names and contents."""
    written = json.dumps({"turns": list(turns), "options": options})
    return {"data": {"dialogue": written}, "files": [("audio", (*file, "audio/wav")) for file in files]}


def events_of(text: str) -> list[tuple[str, dict]]:
    """Server-sent events, each with its data."""
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.split("\n\n") if block]
    return [(block["event"], json.loads(block["data"])) for block in blocks]


def samples_of(wav: bytes | str) -> np.ndarray:
    """The samples of a WAV file, in base64 where it is text."""
    content = base64.b64decode(wav) if isinstance(wav, str) else wav
    return soundfile.read(io.BytesIO(content), dtype="int16")[0]


def refused(answer, code: str, item: str | None = None, problem: str = "") -> None:
    """An answer is this error, in the form of all errors."""
    assert answer.status_code == KINDS[code].status, answer.text
    fault = answer.json()
    assert [*fault] == ["status", "code", "item", "problem", "mend"]
    assert (fault["status"], fault["code"]) == (answer.status_code, code)
    assert item is None or fault["item"] == item
    assert problem in fault["problem"]


def turn(content: bytes, **more: object) -> dict[str, object]:
    return {**SPEAKER, "audio": base64.b64encode(content).decode(), **more}


VOICED = file_of(voiced(0.5))
GOOD = json.dumps({"turns": [turn(file_of(voiced(0.3)))]})
HEAD = b"POST /v1/replies HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
