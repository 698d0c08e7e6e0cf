"""A chat completions server on this machine that answers as a test tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


@dataclass(frozen=True)
class Answer:
    """What is sent back.

    Attributes
    ----------
    body : object
        JSON, or bytes as they are.
    status, headers
        Of the response.
    wait : float
        Seconds before it.
    missing : int
        Bytes that the header promises and that never come.
    pause : float
        Seconds after each byte.
    """

    body: object = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0
    missing: int = 0
    pause: float = 0.0


def says(text: str | None, usage: object = USAGE, finish: str = "stop", **more: object) -> Answer:
    """A chat completion with one choice."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return Answer({"object": "chat.completion", "model": "judge-1", "choices": [choice], "usage": usage}, **more)


def scores(quality: object = 8, empathy: object = 6, completeness: object = 7, fluency: object = 9) -> Answer:
    """A verdict on one reply."""
    verdict = {"quality": quality, "empathy": empathy, "completeness": completeness, "fluency": fluency}
    return says(json.dumps({"reason": "so it seems", **verdict}))


class JudgeServer:
    """Answers by ``answer(user message, how often it came before)``, and keeps what it was asked.

    Attributes
    ----------
    url : str
    bodies : list of dict
        Every request, in the order in which they came.
    keys : list of str or None
        The Authorization header of each.
    paths : list of str
    busiest : int
        The most requests that were being answered at once.
    """

    def __init__(self) -> None:
        self.answer: Callable[[str, int], Answer] = lambda user, times: scores()
        self.bodies: list[dict] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        self.busiest = self._busy = 0
        self._times: Counter[str] = Counter()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"judge": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def users(self) -> list[str]:
        """The user message of every request."""
        return [body["messages"][1]["content"] for body in self.bodies]

    @contextmanager
    def running(self) -> Iterator[JudgeServer]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    @contextmanager
    def noting(self, body: dict, path: str, key: str | None) -> Iterator[Answer]:
        """Keep a request, and give its answer for as long as it is being sent."""
        user = body["messages"][1]["content"]
        with self._lock:
            self.bodies.append(body)
            self.paths.append(path)
            self.keys.append(key)
            times = self._times[user]
            self._times[user] += 1
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
        try:
            yield self.answer(user, times)
        finally:
            with self._lock:
                self._busy -= 1


class _Handler(BaseHTTPRequestHandler):
    judge: JudgeServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.judge.noting(body, self.path, self.headers.get("Authorization")) as answer:
            time.sleep(answer.wait)
            data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            try:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data) + answer.missing))
                self.end_headers()
                for piece in [data] if not answer.pause else [data[place : place + 1] for place in range(len(data))]:
                    self.wfile.write(piece)
                    time.sleep(answer.pause)
            except OSError:
                pass  # whoever asked has given up
        self.close_connection = bool(answer.missing)

    def log_message(self, *_: object) -> None:
        """Nothing goes to the terminal."""
