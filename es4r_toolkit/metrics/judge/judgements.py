"""The file in which every answer of a judge is kept, so that nothing is asked twice."""

from __future__ import annotations

import json
import threading
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from es4r_toolkit.errors import DialogueError

JUDGEMENTS = "judgements.jsonl"


@dataclass(frozen=True)
class Judgement:
    """One line of the file: what came of one question.

    Attributes
    ----------
    key : str
        Of the question.
    id : str
        Of the prediction it was first asked about.
    swapped : bool
        Whether the second reply was shown first.
    source, model : str
        Who was asked.
    text : str or None
        What the judge said, word for word; None where no answer came.
    finish, served, tokens_in, tokens_out, attempts
        As in Reply.
    problem : str or None
        Why no answer came.
    seconds : float
        How long it took, with all attempts.
    """

    key: str
    id: str
    swapped: bool
    source: str
    model: str
    text: str | None = None
    finish: str | None = None
    served: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    attempts: int = 1
    problem: str | None = None
    seconds: float = 0.0

    @property
    def answered(self) -> bool:
        """Whether an answer came, of whatever worth."""
        return self.text is not None


class Judgements:
    """Answers by the key of their question; new ones are appended to the file at once.

    Lines are only ever added. One that is cut short, as a run that is killed can leave it, is named in ``faults`` and
    its question counts as never asked; what failed is kept for the record, and is asked again by the next run.

    Arguments
    ---------
    path : str or Path
        A ``.jsonl`` file; made, with its folder, when the first answer comes.

    Raises
    ------
    DialogueError
        If there is a file that cannot be read or written.

    Example
    -------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "judgements.jsonl"
    >>> Judgements(path).add(Judgement("k", "7", False, "local", "m", text="{}"))
    >>> Judgements(path).answers("k")
    True
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.faults: list[str] = []
        self.new: list[Judgement] = []
        self._by_key: dict[str, Judgement] = {}
        self._lock = threading.Lock()
        self._torn = False
        for number, line in enumerate(self._lines(), start=1):
            judgement = _read(line)
            if judgement is None:
                self.faults.append(f"{self.path}, line {number}: is cut short or no judgement, and is not used")
            else:
                self._keep(judgement)

    def __getitem__(self, key: str) -> Judgement | None:
        """What came of a question; an answer rather than a failure; None where it was never asked."""
        return self._by_key.get(key)

    def answers(self, key: str) -> bool:
        """Whether there is an answer to a question."""
        return key in self._by_key and self._by_key[key].answered

    def add(self, judgement: Judgement) -> None:
        """Append a line; several threads may do so at once."""
        line = json.dumps(vars(judgement), ensure_ascii=False, allow_nan=False) + "\n"
        with self._lock:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as file:
                    # What a killed run left stays a line of its own.
                    file.write(("\n" * self._torn + line).encode("utf-8"))
            except OSError as error:
                raise DialogueError(self.path, f"cannot be written ({error.strerror})", "make room for it") from None
            self._torn = False
            self._keep(judgement)
            self.new.append(judgement)

    def _keep(self, judgement: Judgement) -> None:
        if judgement.answered or not self.answers(judgement.key):
            self._by_key[judgement.key] = judgement

    def _lines(self) -> list[bytes]:
        try:
            data = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise DialogueError(self.path, f"cannot be read ({error.strerror})", "give another folder") from None
        self._torn = bool(data) and not data.endswith(b"\n")
        return data.removesuffix(b"\n").split(b"\n") if data else []


_NEEDED = {one.name for one in fields(Judgement) if one.default is MISSING}
# What each field may hold; the types are those of the JSON.
_TYPES = {one.name: (str,) for one in fields(Judgement)} | {"swapped": (bool,), "seconds": (int, float)}
_TYPES |= {name: (str, type(None)) for name in ("text", "finish", "served", "problem")}
_TYPES |= {name: (int, type(None)) for name in ("tokens_in", "tokens_out")} | {"attempts": (int,)}


def _read(line: bytes) -> Judgement | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not _NEEDED <= set(value) <= set(_TYPES):
        return None
    fit = all(type(entry) in _TYPES[name] for name, entry in value.items())
    return Judgement(**value) if fit else None
