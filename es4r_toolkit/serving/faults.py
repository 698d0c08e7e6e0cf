"""Fault: an answer that is an error, in the same words wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from starlette.exceptions import HTTPException

LONGEST_SHOWN = 200  # characters of what a client sent that an answer repeats


@dataclass(frozen=True)
class Kind:
    """One way in which a request fails, and an example: item, problem and mend."""

    status: int
    meaning: str
    example: tuple[str, str, str]


SCHEMA = "send what the schema at /docs says"
AGAIN = "ask again later"
# By the code that an answer carries; the page of the API and the metrics are made of this table.
KINDS = {
    "host": Kind(
        400,
        "Host names another machine; the answer is plain text.",
        ("Host", "is example.org", "start the server with --allowed-host"),
    ),
    "malformed": Kind(
        400,
        "The body is not JSON or multipart, or cannot be read as such.",
        ("the body", "is not JSON (Expecting value at column 1)", SCHEMA),
    ),
    "token": Kind(
        401,
        "The server asks for a bearer token, and this is not it.",
        ("Authorization", "carries no token that is known", "send Authorization: Bearer TOKEN"),
    ),
    "origin": Kind(
        403,
        "A page of another origin asks, which the server was not told to allow.",
        ("Origin", "is https://example.org", "start the server with --allowed-origin"),
    ),
    "not_found": Kind(404, "There is no such address.", ("the request", "is refused: Not Found", "see /docs")),
    "method": Kind(
        405, "The address knows another method.", ("the request", "is refused: Method Not Allowed", "see /docs")
    ),
    "not_acceptable": Kind(
        406,
        "None of the forms that Accept asks for is there.",
        ("Accept", "asks for image/png", "take one of application/json, audio/wav, text/event-stream"),
    ),
    "slow": Kind(
        408,
        "The body did not arrive in time.",
        ("the body", "did not arrive within 30 s", "send less, or faster"),
    ),
    "too_large": Kind(
        413,
        "The body is larger than the server takes.",
        ("the body", "has more than 33554432 bytes", "send fewer or shorter turns"),
    ),
    "media_type": Kind(
        415,
        "The body, or a recording by its content, is of a type that the server does not take.",
        ("turns[0].audio", "is none of WAV, FLAC, OGG and MP3 by its content", "convert it to WAV"),
    ),
    "invalid": Kind(
        422,
        "The request can be read and not be answered: item, problem and mend say why.",
        ("turns[0].role", "Input should be 'speaker' or 'listener'", SCHEMA),
    ),
    "internal": Kind(
        500, "The server failed; its log says why.", ("the server", "failed", "tell who runs it; the log says why")
    ),
    "busy": Kind(
        503,
        "Too many requests wait already; Retry-After says when to ask again.",
        ("the server", "answers 20 requests already", AGAIN),
    ),
    "timeout": Kind(
        504,
        "The reply was not done in time.",
        ("the reply", "was not done within 60 s", "send fewer or shorter turns, or their text"),
    ),
}
RETRY_AFTER = 2  # seconds; a reply of a small model takes less


class Fault(Exception):
    """A request that is refused, or could not be answered.

    Arguments
    ---------
    code : str
        One of ``KINDS``.
    item : str
        Which part of the request, by the client's own name of it.
    problem : str
        What is wrong with it.
    mend : str
        What to do about it.

    Example
    -------
    >>> Fault("invalid", "turns[0].audio", "is empty", "record it again").as_dict()["status"]
    422
    """

    def __init__(self, code: str, item: str, problem: str, mend: str):
        self.code, self.item, self.problem, self.mend = code, shown(item), shown(problem), mend
        super().__init__(f"{code}: {self.item} {self.problem}; {mend}")

    @property
    def status(self) -> int:
        """Of the HTTP response."""
        return KINDS[self.code].status

    @property
    def headers(self) -> dict[str, str]:
        """What this answer needs beside its body."""
        if self.code == "busy":
            return {"Retry-After": str(RETRY_AFTER)}
        return {"WWW-Authenticate": "Bearer"} if self.code == "token" else {}

    def as_dict(self) -> dict[str, object]:
        """The body of the answer."""
        return {
            "status": self.status,
            "code": self.code,
            "item": self.item,
            "problem": self.problem,
            "mend": self.mend,
        }

    @classmethod
    def of_http(cls, error: HTTPException) -> Fault:
        """What the framework refuses by itself, in the same words."""
        codes = {kind.status: code for code, kind in KINDS.items()}
        code = codes.get(error.status_code, "internal")
        return cls(code, "the request", f"is refused: {HTTPStatus(error.status_code).phrase}", "see /docs")

    @classmethod
    def internal(cls) -> Fault:
        """A failure that is not the client's, of which it learns nothing."""
        return cls("internal", *KINDS["internal"].example)


def shown(text: str) -> str:
    """A text of a client's as an answer may repeat it: one line, and not long.

    Example
    -------
    >>> shown("a" * 500)[-3:], shown("two\\nlines")
    ('...', 'two lines')
    """
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= LONGEST_SHOWN else f"{line[:LONGEST_SHOWN]}..."
