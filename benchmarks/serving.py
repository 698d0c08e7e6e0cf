"""es4r serve under load: clients at once, good requests among bad ones; what it answers and what it holds, as JSON.

    python benchmarks/serving.py --clients 8 --requests 200

The server is a process of its own. What each good request is answered alone is asked first; under load every answer
must be the same, text and samples, and every bad request must get the status that it deserves. Memory is what the
server holds after a quarter as many requests, which warm it up, and at the end.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx2
import numpy as np
import soundfile

RATE, TIMEOUT = 16000, 300.0
COMMAND = [sys.executable, "-m", "es4r_toolkit.cli", "serve", "--port", "0"]
EVENTS = "text/event-stream"


@dataclass(frozen=True)
class Asked:
    """A request, and the status that it deserves."""

    name: str
    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def main() -> int:
    """Start a server, ask it, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=200, help="by each client")
    options = parser.parse_args()
    with running() as url:
        print(json.dumps(run(url, options.clients, options.requests)))
    return 0


@contextmanager
def running(*options: str) -> Iterator[str]:
    """The address of a server in a process of its own, which is stopped when the block ends."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        try:
            url = re.match(r"(http://\S+)/docs", server.stdout.readline())
            if url is not None:
                yield url[1]
        finally:
            server.send_signal(signal.SIGINT)
            status = server.wait(TIMEOUT)
            server.stdout.close()
        if url is None or status:
            log.seek(0)
            raise SystemExit(f"the server ended with {status}: {log.read()[-2000:]}")


def run(url: str, clients: int, requests: int, turns: int = 3, good_of_three: int = 2) -> dict[str, object]:
    """Load a server, and say what it answered and what it held.

    Arguments
    ---------
    url : str
    clients, requests : int
        How many clients at once, and what each of them asks.
    turns : int
        Of the longest dialogue.
    good_of_three : int
        How many of three requests are good ones.
    """
    largest = httpx2.get(f"{url}/v1/model", timeout=TIMEOUT).json()["limits"]["body_bytes"]
    good, bad = good_requests(turns), bad_requests(largest)
    alone = {asked.name: content_of(ask(url, asked)) for asked in good}
    with ThreadPoolExecutor(clients) as pool:
        warm = Load(url, requests // 4, good_of_three, good, bad, alone)
        list(pool.map(lambda client: list(warm.of(-1 - client)), range(clients)))
        before, began = rss_mb(url), time.perf_counter()
        work = Load(url, requests, good_of_three, good, bad, alone)
        rounds = list(pool.map(lambda client: list(work.of(client)), range(clients)))
        seconds = time.perf_counter() - began
    after, answers = rss_mb(url), [answer for answers in rounds for answer in answers]
    took = [answer["seconds"] for answer in answers if answer["status"] == 200]
    return {
        "clients": clients,
        "requests": len(answers),
        "statuses": dict(sorted(Counter(answer["status"] for answer in answers).items())),
        "not_deserved": [answer["name"] for answer in answers if not answer["deserved"]],
        "unequal": [answer["name"] for answer in answers if not answer["equal"]],
        "rss_mb": [round(before), round(after)],
        "rss_growth": round(after / before - 1, 4),
        "seconds": round(seconds, 1),
        "reply_s": {"median": round(statistics.median(took), 3), "most": round(max(took), 3)},
    }


@dataclass(frozen=True)
class Load:
    """What each client asks, in an order of its own, and what it is to be answered."""

    url: str
    requests: int
    good_of_three: int
    good: Sequence[Asked]
    bad: Sequence[Asked]
    alone: dict[str, object]

    def of(self, client: int) -> Iterator[dict[str, object]]:
        """One client's answers."""
        draw = random.Random(client)
        for place in range(self.requests):
            asked = draw.choice(self.good if place % 3 < self.good_of_three else self.bad)
            began = time.perf_counter()
            answer = ask(self.url, asked)
            yield {
                "name": f"{asked.name}: {answer.status_code}",
                "status": answer.status_code,
                "deserved": answer.status_code == asked.status,
                "equal": asked.status != 200 or content_of(answer) == self.alone[asked.name],
                "seconds": time.perf_counter() - began,
            }


def ask(url: str, asked: Asked) -> httpx2.Response:
    """Send a request."""
    return httpx2.post(f"{url}/v1/replies", content=asked.body, headers=asked.headers, timeout=TIMEOUT)


def content_of(answer: httpx2.Response) -> object:
    """What must be the same each time: the text and the samples."""
    kind = answer.headers["content-type"].partition(";")[0]
    if kind == "audio/wav":
        return answer.headers["ES4R-Text"], answer.content
    if kind == EVENTS:
        events = [(name, json.loads(data)) for name, data in re.findall(r"event: (\w+)\ndata: (.*)", answer.text)]
        # A word may come before or after the sound of the sentence before it.
        return dict(events)["end"]["text"], [data["audio"] for name, data in events if name == "audio"]
    return answer.status_code, answer.json().get("text"), answer.json().get("audio")


def rss_mb(url: str) -> float:
    """What the server holds, as it tells Prometheus."""
    figures = httpx2.get(f"{url}/metrics", timeout=TIMEOUT).text
    return float(re.search(r"^process_resident_memory_bytes (\S+)", figures, re.MULTILINE)[1]) / 2**20


def good_requests(most: int) -> list[Asked]:
    """Dialogues of one and more turns, in each of the three forms."""
    found = []
    for turns in range(1, most + 1):
        body = json.dumps(dialogue(turns)).encode()
        for form in ("application/json", "audio/wav", EVENTS):
            headers = {"Content-Type": "application/json", "Accept": form}
            found.append(Asked(f"{turns} turns as {form}", body, 200, headers))
    return found


def bad_requests(largest: int) -> list[Asked]:
    """Of each kind of error that a client brings upon itself."""
    kind = {"Content-Type": "application/json"}
    good, picture = dialogue(1), base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(1000)).decode()
    cut = base64.b64encode(recording(0)[:-500]).decode()
    return [
        Asked("no JSON", b"{", 400, kind),
        Asked("another host", json.dumps(good).encode(), 400, {**kind, "Host": "evil.example"}),
        Asked("another origin", json.dumps(good).encode(), 403, {**kind, "Origin": "https://evil.example"}),
        Asked("a form that is not there", json.dumps(good).encode(), 406, {**kind, "Accept": "image/png"}),
        Asked("too large", b" " * (largest + 1), 413, kind),
        Asked("plain text", b"hello", 415, {"Content-Type": "text/plain"}),
        Asked("a picture", json.dumps({"turns": [{**good["turns"][0], "audio": picture}]}).encode(), 415, kind),
        Asked("cut short", json.dumps({"turns": [{**good["turns"][0], "audio": cut}]}).encode(), 422, kind),
        Asked("no turns", b'{"turns": []}', 422, kind),
        Asked("no strategy", json.dumps({**good, "options": {"strategy": "shout"}}).encode(), 422, kind),
    ]


def dialogue(turns: int) -> dict[str, list[dict[str, str]]]:
    """A dialogue whose last turn is the speaker's."""
    return {
        "turns": [
            {
                "role": "speaker" if (turns - place) % 2 else "listener",
                "text": f"It was on the phone. {place}",
                "audio": base64.b64encode(recording(place)).decode(),
            }
            for place in range(turns)
        ]
    }


def recording(index: int, seconds: float = 1.5) -> bytes:
    """A voiced sound that swells and falls, as a WAV file."""
    time_axis = np.arange(round(seconds * RATE)) / RATE
    tones = (np.sin(2 * np.pi * (110 + 15 * index) * partial * time_axis) / partial for partial in range(1, 12))
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * sum(tones) * (0.6 + 0.4 * np.sin(6 * np.pi * time_axis)), RATE, format="WAV")
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
