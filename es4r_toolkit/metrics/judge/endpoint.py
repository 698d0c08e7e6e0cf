"""A judge behind any OpenAI-compatible chat completions endpoint."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

from es4r_toolkit.errors import BackendError, ConfigError, require
from es4r_toolkit.metrics.judge.asking import Reply, Settings, Unanswered
from es4r_toolkit.metrics.judge.prompts import Messages

PATH = "/chat/completions"
DEFAULTS = {"temperature": 0, "max_tokens": 1024}
# Given otherwise, or would change what an answer looks like.
TAKEN = ("model", "messages", "n", "stream")
AGAIN = (408, 425, 429)
# No other question would fare better: a wrong key, an unpaid bill, a wrong address or model.
HOPELESS = (301, 302, 303, 307, 308, 401, 402, 404, 405)
LARGEST = 4 * 2**20
KEY_SHOWN_AS = "[the key]"


def endpoint_settings(url: str, model: str, options: Mapping[str, object]) -> Settings:
    """What an endpoint's answer depends on.

    Arguments
    ---------
    url : str
        Its address, such as ``http://localhost:8000/v1``.
    model : str
        Its name there.
    options : mapping
        Further fields of the request over ``DEFAULTS``; one that is None is left out of it.

    Raises
    ------
    ConfigError
        If the address is none, or could hold a secret; or an option is given elsewhere.

    Example
    -------
    >>> endpoint_settings("http://localhost:8000/v1/", "judge", {"max_tokens": None, "seed": 1})
    Settings(source='http://localhost:8000/v1', model='judge', options={'temperature': 0, 'seed': 1})
    """
    for name in options:
        require(name not in TAKEN, "setting", name, f"must be none of {', '.join(TAKEN)}")
    given = {name: value for name, value in {**DEFAULTS, **options}.items() if value is not None}
    return Settings(_address(url), model, given)


def read_key(variable: str) -> str | None:
    """The API key that an environment variable holds; None where it is not set.

    Raises
    ------
    ConfigError
        If it cannot be a key; the message does not show it.
    """
    key = os.environ.get(variable, "").strip()
    # Those two a server would quote in other signs, and they could not be struck out.
    if not all("!" <= letter <= "~" and letter not in '"\\' for letter in key):
        raise ConfigError(variable, "holds characters that no key has", "set it to the key alone")
    return key or None


def is_in_the_clear(url: str) -> bool:
    """Whether what is sent to an address leaves this machine unencrypted."""
    parts = httpx2.URL(url)
    return parts.scheme == "http" and parts.host not in ("localhost", "127.0.0.1", "::1")


class Endpoint:
    """Asks over HTTP, and asks again where time or another attempt may help.

    Time-outs, broken connections, 408, 425, 429 and 5xx are tried again: after the seconds that ``Retry-After`` names,
    or after waits that double each time and are shortened by chance, so that several do not come back at once. The
    proxies of the environment are used; redirects are not followed.

    Arguments
    ---------
    settings : Settings
        From ``endpoint_settings``.
    key : str, optional
        Sent as a bearer token, and struck out of whatever the server says.
    timeout : float
        Seconds for one attempt.
    retries : int
        Further attempts at most.
    first_wait, longest_wait : float
        Seconds before the second attempt, and the most before any. Who is asked to wait longer gives up.
    """

    def __init__(
        self,
        settings: Settings,
        key: str | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        first_wait: float = 1.0,
        longest_wait: float = 120.0,
    ):
        require(timeout > 0, "timeout", timeout, "must be positive")
        require(retries >= 0, "retries", retries, "must not be negative")
        self.settings, self.key, self.timeout, self.retries = settings, key, timeout, retries
        self.first_wait, self.longest_wait = first_wait, longest_wait
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.client = httpx2.Client(headers=headers, timeout=timeout, follow_redirects=False)
        self._reached, self._stopped = False, threading.Event()

    def ask(self, messages: Messages) -> Reply:
        """One chat completion.

        Raises
        ------
        Unanswered
            If this question got no answer in all attempts.
        BackendError
            If the endpoint is not there, refuses the key or does not know the model.
        """
        body = {"model": self.settings.model, "messages": messages, **self.settings.options}
        for attempt in range(1, self.retries + 2):
            wanted = None
            try:
                status, headers, data = self._post(body)
            except httpx2.RequestError as fault:
                problem = self._clean(f"{type(fault).__name__}: {fault}".removesuffix(": "))
                if not self._reached and isinstance(fault, httpx2.ConnectError):
                    raise BackendError(
                        self.settings.source, f"cannot be reached ({problem})", "start it, or correct the address"
                    ) from None
            else:
                if status == 200:
                    return self._completion(data, attempt)
                problem = f"HTTP {status}{self._said(data)}"
                if status in HOPELESS:
                    mend = "check the address (it often ends in /v1), the model and the key"
                    raise BackendError(self.settings.source, f"refuses: {problem}", mend)
                if status not in AGAIN and status < 500:
                    raise Unanswered(problem, attempt)
                wanted = seconds_to_wait(headers.get("Retry-After"))
                if wanted is not None and wanted > self.longest_wait:
                    raise Unanswered(f"{problem}; asks to wait {wanted:.0f} s", attempt)
            if attempt > self.retries or self._stopped.wait(self._delay(attempt, wanted)):
                break
        raise Unanswered(problem, attempt)

    def stop(self) -> None:
        """Make no further attempts."""
        self._stopped.set()

    def _post(self, body: Mapping[str, object]) -> tuple[int, httpx2.Headers, bytes]:
        give_up = time.monotonic() + self.timeout
        with self.client.stream("POST", self.settings.source + PATH, json=body) as response:
            self._reached = True
            data = b""
            for piece in response.iter_bytes():
                data += piece
                if len(data) > LARGEST:
                    raise Unanswered(f"the answer is longer than {LARGEST} bytes")
                # The client's own time-out starts anew with each piece.
                if time.monotonic() > give_up:
                    raise httpx2.ReadTimeout(f"not done after {self.timeout:g} s")
        return response.status_code, response.headers, data

    def _delay(self, attempt: int, wanted: float | None) -> float:
        if wanted is not None:
            return wanted + random.uniform(0, min(self.first_wait, 1.0))
        return min(self.longest_wait, self.first_wait * 2 ** (attempt - 1)) * random.uniform(0.5, 1)

    def _completion(self, data: bytes, attempt: int) -> Reply:
        body = _parsed(data)
        choices = body.get("choices") if isinstance(body, dict) else None
        if not isinstance(choices, list):
            said = data.decode(errors="replace") if body is None else json.dumps(body, ensure_ascii=False)
            raise Unanswered(f"the answer is no chat completion: {self._clean(said)}", attempt)
        usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
        spent = [_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
        if len(choices) != 1:
            raise Unanswered(f"the answer has {len(choices)} choices, not one", attempt, *spent)
        choice = choices[0] if isinstance(choices[0], dict) else {}
        message = choice.get("message")
        # Where a model refuses or only thinks, the content is null.
        text = (message.get("content") or "") if isinstance(message, dict) else None
        if not isinstance(text, str):
            raise Unanswered("the answer's choice has no text", attempt, *spent)
        finish, served = (self._word(value) for value in (choice.get("finish_reason"), body.get("model")))
        return Reply(self._safe(text), finish, *spent, served, attempt)

    def _said(self, data: bytes) -> str:
        """What the server says of an error."""
        body = _parsed(data)
        error = body.get("error", body) if isinstance(body, dict) else data.decode(errors="replace")
        message = self._clean(str(error.get("message", "")) if isinstance(error, dict) else str(error))
        return f" ({message})" if message else ""

    def _clean(self, text: str) -> str:
        return " ".join(self._safe(text).split())[:200]

    def _word(self, value: object) -> str | None:
        return self._clean(value) if isinstance(value, str) else None

    def _safe(self, text: str) -> str:
        """A text that may be written: without the key, and without half characters."""
        whole = text.encode("utf-8", "replace").decode("utf-8")
        return whole if self.key is None else whole.replace(self.key, KEY_SHOWN_AS)


def seconds_to_wait(header: str | None) -> float | None:
    """What a ``Retry-After`` header asks for, in seconds or by a date; None where it says nothing sensible.

    Example
    -------
    >>> seconds_to_wait("2"), seconds_to_wait("Wed, 21 Oct 2015 07:28:00 GMT"), seconds_to_wait("soon")
    (2.0, 0.0, None)
    """
    try:
        seconds = float(header or "nan")
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except (ValueError, OverflowError):
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds == seconds else None


def _address(url: str) -> str:
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL as fault:
        raise ConfigError("endpoint", f"is no address ({fault})", "write it as http://localhost:8000/v1") from None
    # They can hold a key, and the address is written to files: not shown here either.
    if parts.userinfo or parts.query or parts.fragment:
        raise ConfigError("endpoint", "has a user name, a query or a fragment", "give a key by the environment alone")
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ConfigError("endpoint", f"is {url!r}, no address", "write it as http://localhost:8000/v1")
    return str(parts).rstrip("/").removesuffix(PATH)


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
