"""Records from a .json or .jsonl file: strict reading, and what is said of a record that is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from es4r_toolkit.data.files import size_of_file
from es4r_toolkit.errors import DialogueError

EXTENSIONS = (".jsonl", ".json")
LARGEST = 1 << 31  # bytes of a file that is read whole: 2 GiB is about a million dialogues
LONGEST_SHOWN = 400  # characters of a value that a message repeats
LATEST = 1e9  # seconds into a recording: thirty years


class FieldError(ValueError):
    """One fault of one record: which field, what is wrong with it, how to mend it."""

    def __init__(self, field: str, problem: str, mend: str):
        self.field, self.problem, self.mend = _shortened(field), _shortened(problem), mend
        super().__init__(f"{self.field}: {self.problem}; {mend}")


def _shortened(text: str) -> str:
    half = LONGEST_SHOWN // 2
    return text if len(text) <= LONGEST_SHOWN else f"{text[:half]} … {text[-half:]}"


@dataclass(frozen=True)
class Record:
    """One entry of a file.

    Attributes
    ----------
    line : int
        Its line in a .jsonl file, its place in the list of a .json file; both from 1.
    value : object
        The parsed JSON; a FieldError where the line could not be parsed.
    name : str or None
        The dialogue's id, where it is known though the record could not be parsed.
    turn_lines : tuple of int
        Of a dialogue in a table: the lines of its turns, oldest first.
    """

    line: int
    value: object
    name: str | None = None
    turn_lines: tuple[int, ...] = ()

    def line_of(self, field: str) -> int:
        """Where a field stands: in the line of its turn, where each has its own.

        Example
        -------
        >>> record = Record(4, {}, turn_lines=(2, 3, 4))
        >>> record.line_of("dialogue_history[1].audio_path"), record.line_of("response.audio_path")
        (3, 4)
        """
        turn = re.match(r"dialogue_history\[(\d+)\]", field) if self.turn_lines else None
        return self.line if turn is None else self.turn_lines[int(turn[1])]


@dataclass(frozen=True)
class Rejection:
    """Why a record was left out: its first fault.

    Attributes
    ----------
    item : str
        The id, or its place where no id could be read.
    line : int
        Of the field, as `Record.line_of` has it.
    field : str
        Such as ``dialogue_history[2].role``.
    problem, mend : str
        What is wrong with the value seen, and what to do about it.
    """

    item: str
    line: int
    field: str
    problem: str
    mend: str

    @property
    def kind(self) -> str:
        """The fault without the values seen, so that like faults can be counted together.

        Example
        -------
        >>> Rejection("7", 3, "dialogue_history[2].role", "is 'bot'", "write speaker or listener").kind
        'dialogue_history[].role is …'
        """
        field = re.sub(r"\[\d+\]", "[]", self.field)
        return f"{field} " + re.sub(r"""'[^']*'|"[^"]*"|\d+(\.\d+)?""", "…", self.problem)

    def error(self, path: str | Path) -> DialogueError:
        """The same as an exception that names the file, line and field."""
        where = place_of(path, self.line)
        name = "" if self.item == where else f" ({self.item})"
        return DialogueError(f"{path}, {where}{name}", f"{self.field} {self.problem}", self.mend)


def place_of(path: str | Path, line: int) -> str:
    """Where a record stands, in words; its name where it has no id.

    Example
    -------
    >>> place_of("dialogues.jsonl", 3), place_of("dialogues.json", 3)
    ('line 3', 'entry 3')
    """
    return f"entry {line}" if Path(path).suffix.lower() == ".json" else f"line {line}"


def read_records(path: str | Path) -> list[Record]:
    """Read the records of a .jsonl file, or of a .json file that holds a list or one object.

    A byte order mark, Windows line ends and blank lines are tolerated; a key that stands twice in an object is not.
    NaN and half characters pass here, so that the record keeps its id; `refuse_broken_values` finds them.

    Raises
    ------
    DialogueError
        If the file is missing, empty, not UTF-8, of another extension, or a .json file that does not parse.
    """
    path = Path(path)
    _require_file(path)
    if path.suffix.lower() not in EXTENSIONS:
        raise DialogueError(
            path, f"has the extension {path.suffix!r}", "give a .jsonl or .json file, or a .csv table of dialogues"
        )
    text = read_text(path)
    if path.suffix.lower() == ".json":
        values = read_json(path, text)
        records = [Record(place, value) for place, value in enumerate(_as_list(values), start=1)]
    else:
        records = list(_lines(text))
    if not records:
        raise DialogueError(path, "is empty", "write at least one record to it")
    return records


def read_lines(path: Path) -> list[dict]:
    """The objects of a .jsonl file that this toolkit wrote itself; `read_records` reads those of others."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without its byte order mark."""
    _require_file(path)
    try:
        data = path.read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        problem = f"is not UTF-8 (byte 0x{data[error.start]:02x} in line {line})"
        raise DialogueError(path, problem, "save it as UTF-8") from None
    except OSError as error:
        raise DialogueError(path, f"cannot be read ({error.strerror})", "correct its permissions") from None


def _require_file(path: Path) -> None:
    size = size_of_file(path, DialogueError)
    if size > LARGEST:
        raise DialogueError(path, f"has {size} bytes, over the limit of {LARGEST}", "split it")


def read_json(path: Path, text: str) -> object:
    """The one JSON value of a file."""
    if not text.strip():
        raise DialogueError(path, "is empty", "write at least one record to it")
    try:
        return _parse(text)
    except FieldError as error:
        raise DialogueError(path, error.problem, error.mend) from None


def _as_list(values: object) -> list:
    return values if isinstance(values, list) else [values]


def _lines(text: str) -> Iterator[Record]:
    # str.splitlines would also split at characters that JSON allows inside a string, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield Record(number, _parse(line))
        except FieldError as error:
            yield Record(number, error)


def _parse(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_refuse_twins)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if "\n" not in text.strip() else f"line {error.lineno}, column {error.colno}"
        raise FieldError("record", f"is not JSON ({error.msg} at {place})", "mend the JSON there") from None
    except RecursionError:
        raise FieldError("record", "is nested too deep to be read", "write it as the schema says") from None
    except ValueError as error:
        if isinstance(error, FieldError):
            raise
        raise FieldError("record", f"is not JSON ({error})", "mend the JSON") from None


def _refuse_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) < len(pairs):
        seen: set[str] = set()
        twin = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise FieldError("record", f"holds the key {twin!r} twice in one object", "keep one of them")
    return record


def refuse_broken_values(record: object) -> None:
    """Raise FieldError at the first NaN, infinite number or half character (lone surrogate) in a record.

    Python's parser takes all three, and each would fail much later, or not at all.

    Example
    -------
    >>> refuse_broken_values({"turns": [{"index": float("nan")}]})
    Traceback (most recent call last):
    ...
    es4r_toolkit.data.records.FieldError: turns[0].index: is nan, which JSON does not know; write a number
    """
    # A stack of its own: a record may be nested deeper than Python recurses.
    waiting = [("", record)]
    while waiting:
        field, value = waiting.pop()
        if isinstance(value, dict):
            entries = [(f"{field}.{key}".lstrip("."), entry) for key, entry in value.items()]
            waiting += reversed(entries + [(f"{field}.<key>".lstrip("."), key) for key in value])
        elif isinstance(value, list):
            waiting += reversed([(f"{field}[{place}]", entry) for place, entry in enumerate(value)])
        elif isinstance(value, float) and not math.isfinite(value):
            raise FieldError(field, f"is {value}, which JSON does not know", "write a number")
        elif isinstance(value, str) and not value.isascii() and (half := re.search("[\ud800-\udfff]", value)):
            raise FieldError(field, f"holds half a character ({half.group()!r})", "write the whole character")


# What JSON calls the types that json.loads gives.
_TYPE_NAMES = {dict: "an object", list: "a list", str: "a string", int: "a whole number", float: "a number"}
_TYPE_NAMES |= {bool: "true or false", type(None): "null"}


def type_name(value: object) -> str:
    """The JSON name of a value's type.

    Example
    -------
    >>> type_name([1, 2])
    'a list'
    """
    return _TYPE_NAMES[type(value)]


def seconds_field(value: object, field: str) -> float | None:
    """A time in a recording, or nothing."""
    if value is None:
        return None
    # The bound comes first: a whole number of JSON may be larger than any float, and infinity is no number of seconds.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LATEST:
        shown = f"is {value}" if isinstance(value, int | float) else f"is {type_name(value)}, not a number"
        raise FieldError(field, shown, "write seconds from the start of the recording, such as 3.25")
    return float(value)


def text_field(value: object, field: str, mend: str) -> str:
    """A value that must be a string with something in it."""
    if not isinstance(value, str):
        raise FieldError(field, "is missing" if value is None else f"is {type_name(value)}, not a string", mend)
    if not value.strip():
        raise FieldError(field, "is empty", mend)
    return value


def slots_field(value: object, field: str = "slots") -> dict[str, str]:
    """An object of strings, or nothing."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FieldError(field, f"is {type_name(value)}, not an object", "write {slot: value}")
    return {
        slot: text_field(entry, f"{field}.{slot}", "name the slot's value as a string") for slot, entry in value.items()
    }
