"""Dialogues from a flat table: a CSV file with one utterance a row."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from es4r_toolkit.data.records import FieldError, Record, read_text
from es4r_toolkit.dialogue import LISTENER, ROLES, SPEAKER
from es4r_toolkit.errors import ConfigError, DialogueError

EXTENSIONS = (".csv", ".tsv")
NEEDED = ("dialogue_id", "role", "wav")
OPTIONAL = ("turn", "text", "start", "stop", "emotion", "speaker_id", "split")
SAMPLES = ("every", "last")
# Each listener turn is a sample with all turns before it, so they grow with the square; no conversation is this long.
MOST_TURNS = 1000
Row = dict[str, str]


@dataclass(frozen=True)
class TableOptions:
    """How a table is read.

    Attributes
    ----------
    columns : mapping
        Our name of a column -> the table's, where they differ.
    roles : mapping
        The table's word for a role -> ``speaker`` or ``listener``.
    samples : str
        ``every``: one dialogue for each listener turn that answers somebody, with all turns before it. ``last``: for
        the last of them only.

    Raises
    ------
    ConfigError
        If a name or a word is not known.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    samples: str = "every"

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in (*NEEDED, *OPTIONAL):
                known = ", ".join((*NEEDED, *OPTIONAL))
                raise ConfigError("columns", f"has {name!r}, which is no column of ours", f"ours are {known}")
        for word, role in self.roles.items():
            if role not in ROLES:
                raise ConfigError("roles", f"makes {word!r} a {role!r}", f"make it a {SPEAKER} or a {LISTENER}")
        if self.samples not in SAMPLES:
            raise ConfigError("samples", f"is {self.samples!r}", "must be every or last")


def table_options(path: str | Path) -> TableOptions:
    """The options that a YAML file holds: ``columns``, ``roles`` and ``samples``, each optional.

    Raises
    ------
    ConfigError
        If it cannot be read or holds anything else.
    """
    try:
        values = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, YAMLError) as fault:
        raise ConfigError(path, f"cannot be read ({' '.join(str(fault).split())[:200]})", "give a YAML file") from None
    known = [one.name for one in fields(TableOptions)]
    if not isinstance(values, dict) or not set(values) <= set(known):
        raise ConfigError(path, f"holds something other than {', '.join(known)}", "see docs/data.md")
    return TableOptions(**values)


def read_table(path: Path, options: TableOptions, need_audio: bool = True) -> list[Record]:
    """The records of a table, in the schema of a manifest; a faulty row costs the samples that hold it, no other.

    Arguments
    ---------
    path : Path
    options : TableOptions
    need_audio : bool
        Whether the column ``wav`` is needed.

    Raises
    ------
    DialogueError
        If the file cannot be read, or lacks a column that is needed.
    """
    table = _rows(path, options.columns, [name for name in NEEDED if need_audio or name != "wav"])
    records: list[Record] = []
    for name, rows in table.items():
        try:
            turns = list(_turns(rows, options.roles))
        except _RowFault as fault:
            records.append(Record(fault.line, fault.error, name or None))
            continue
        records += _samples(name, turns, options.samples)
    return records


class _RowFault(Exception):
    """What is wrong with which row."""

    def __init__(self, line: int, error: FieldError):
        self.line, self.error = line, error


def _rows(path: Path, columns: Mapping[str, str], needed: Sequence[str]) -> dict[str, list[tuple[int, Row]]]:
    """Rows with their lines, by dialogue, as they stand in the file."""
    text = read_text(path)
    header = text.split("\n", 1)[0]
    # German tables are parted by semicolons.
    mark = (
        "\t"
        if path.suffix.lower() == ".tsv" or "\t" in header
        else ";"
        if header.count(";") > header.count(",")
        else ","
    )
    try:
        table = pd.read_csv(io.StringIO(text), sep=mark, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except (ValueError, pd.errors.ParserError) as fault:
        raise DialogueError(path, f"is no table ({' '.join(str(fault).split())[:200]})", "save it as CSV") from None
    if not isinstance(table.index, pd.RangeIndex):
        # pandas would take the first columns for names of rows.
        problem = "has rows with more cells than its header has columns"
        raise DialogueError(path, problem, 'write "..." around text that holds commas, and name every column')
    # A column of our name that another stands in for is not read.
    ours = dict.fromkeys(columns, "") | {theirs: name for name, theirs in columns.items()}
    table = table.rename(columns=lambda theirs: ours.get(str(theirs).strip(), str(theirs).strip()))
    names = list(table.columns)
    # pandas calls the second of two equal names text.1.
    twice = [name for name in (*NEEDED, *OPTIONAL) if names.count(name) > 1 or f"{name}.1" in names]
    if twice:
        raise DialogueError(path, f"has the column {', '.join(twice)} twice", "rename one of them, or map it: columns")
    missing = [columns.get(name, name) for name in needed if name not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns)) or "none"
        raise DialogueError(
            path, f"has no column {', '.join(missing)}; its columns are {found}", "name it, or map it: columns"
        )
    kept = [name for name in (*NEEDED, *OPTIONAL) if name in table.columns]
    grouped: dict[str, list[tuple[int, Row]]] = {}
    for line, values in enumerate(zip(*(table[name] for name in kept)), start=2):
        row = dict(zip(kept, (value.strip() for value in values)))
        if any(row.values()):
            grouped.setdefault(row["dialogue_id"], []).append((line, row))
    if not grouped:
        raise DialogueError(path, "has no rows", "write one utterance a row")
    return grouped


def _turns(rows: Sequence[tuple[int, Row]], roles: Mapping[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Turns of one dialogue with their lines, oldest first."""
    ordered: list[tuple[float, int, Row]] = []
    seen: dict[int, int] = {}
    if len(rows) > MOST_TURNS:
        problem = f"stands in {len(rows)} rows, over the limit of {MOST_TURNS} turns"
        raise _RowFault(rows[0][0], FieldError("dialogue_id", problem, "give each dialogue an id of its own"))
    for place, (line, row) in enumerate(rows):
        if not row["dialogue_id"]:
            raise _RowFault(line, FieldError("dialogue_id", "is empty", "name the dialogue of every row"))
        number = place
        if row.get("turn"):
            try:
                number = int(row["turn"])
            except ValueError:
                raise _RowFault(line, FieldError("turn", f"is {row['turn']!r}", "write a whole number")) from None
            if number in seen:
                problem = f"{number} stands in line {seen[number]} too"
                mend = "number the turns of a dialogue, each once; if these are two dialogues, give each its own id"
                raise _RowFault(line, FieldError("turn", problem, mend))
            seen[number] = line
        ordered.append((number, line, row))
    for number, line, row in sorted(ordered, key=lambda one: one[0]):
        word = row["role"]
        turn: dict[str, Any] = {"index": number, "role": roles.get(word, word)}
        turn |= {"audio_path": row["wav"]} if row.get("wav") else {}
        turn |= {"utterance": row["text"]} if row.get("text") else {}
        turn |= {name: row[name] for name in ("emotion", "speaker_id", "split") if row.get(name)}
        for name in ("start", "stop"):
            if row.get(name):
                try:
                    turn[name] = float(row[name].replace(",", "."))
                except ValueError:
                    problem = f"is {row[name]!r}"
                    raise _RowFault(line, FieldError(name, problem, "write seconds, such as 3.25")) from None
        yield line, turn


def _samples(name: str, turns: list[tuple[int, dict[str, Any]]], samples: str) -> Iterator[Record]:
    """Each listener turn that answers somebody, with the turns before it; the turns alone where there is none."""
    answers = [
        place
        for place, (_, turn) in enumerate(turns)
        if turn["role"] == LISTENER and any(before["role"] == SPEAKER for _, before in turns[:place])
    ]
    chosen = answers if samples == "every" else answers[-1:]
    lines = tuple(line for line, _ in turns)
    for place in chosen or [len(turns)]:
        history = [turn for _, turn in turns[:place]]
        value: dict[str, Any] = {"conversation_id": name, "dialogue_history": history}
        line = lines[min(place, len(turns) - 1)]
        if chosen:
            value["response"] = turns[place][1]
            if len(chosen) > 1:
                value["turn_id"] = str(turns[place][1]["index"])
        splits = {turn["split"] for turn in (*history, value.get("response", {})) if "split" in turn}
        if len(splits) > 1:
            problem = f"are of several splits, {', '.join(sorted(splits))}"
            fault = FieldError("split", problem, "put a dialogue into one split")
            yield Record(line, fault, name)
            continue
        if splits:
            value["split"] = splits.pop()
        yield Record(line, value, name, lines)
