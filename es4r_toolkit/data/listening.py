"""Listening tests: what is asked, the key to who is who, and the results that raters send back."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from es4r_toolkit.data.records import FieldError, Rejection, read_json, read_text, text_field
from es4r_toolkit.data.responses import write_json
from es4r_toolkit.errors import DialogueError

SPEECH, TEXT = "speech", "text"
# The two replies to a dialogue, by names that tell nothing.
SIDES = ("x", "y")
SAME = "same"
COLUMNS = ("test", "rater", "item", "aspect", "answer", "shown_first", "answered_at")
DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Aspect:
    """Something that raters compare two replies on.

    Attributes
    ----------
    name : str
        In results.
    kind : str
        ``speech`` or ``text``: whether it is heard or read.
    title, question : str
        As raters see it.
    """

    name: str
    kind: str
    title: str
    question: str


# The names of the aspects are the paper's (its human A/B tests on speech and on text). What its letters E, C and Q
# stand for is not public: emotion, consistency and quality, and the wording of every question, are ours.
ASPECTS = {
    aspect.name: aspect
    for aspect in (
        Aspect("DMOS-E", SPEECH, "Emotion", "Whose voice carries feelings that suit this speaker better?"),
        Aspect("DMOS-C", SPEECH, "Consistency", "Whose way of speaking goes better with its words and the dialogue?"),
        Aspect("DMOS-Q", SPEECH, "Quality", "Whose speech sounds more natural and clearer?"),
        Aspect("topic", TEXT, "Topic", "Whose words keep closer to what the speaker talks about?"),
        Aspect("emotion", TEXT, "Emotion", "Whose words see better how the speaker feels, and why?"),
        Aspect("specificity", TEXT, "Specificity", "Whose words speak more to this very situation?"),
        Aspect("action", TEXT, "Action", "Whose words help more, by a question, offer, suggestion or comfort?"),
        Aspect("empathy", TEXT, "Empathy", "Whose words show more understanding and care?"),
    )
}


@dataclass(frozen=True)
class KeyItem:
    """One dialogue of a test.

    Attributes
    ----------
    dialogue : str
        Its id.
    first : str
        Which of its replies is of the first system: ``x`` or ``y``.
    aspects : tuple of str
        What is asked of it.
    """

    dialogue: str
    first: str
    aspects: tuple[str, ...]


@dataclass(frozen=True)
class Key:
    """Who is who in a listening test.

    Attributes
    ----------
    test : str
        The digest of the test, which its results carry.
    systems : tuple of str
        What the first and the second system are called.
    items : dict of str to KeyItem
        By the name that the page has for a dialogue.
    """

    test: str
    systems: tuple[str, str]
    items: Mapping[str, KeyItem]

    def write(self, path: Path) -> None:
        """Write it, unless a key of another test lies there: without that, its results could not be read.

        Raises
        ------
        DialogueError
            If there is one, or the file cannot be written.
        """
        if path.exists() and (other := read_key(path).test) != self.test:
            problem = f"holds the key of another test ({other}), which its results will need"
            raise DialogueError(path, problem, "give another output folder, or take that key away")
        items = {name: asdict(item) for name, item in self.items.items()}
        write_json(path, {"test": self.test, "systems": list(self.systems), "items": items})


@dataclass(frozen=True)
class Rating:
    """One answer.

    Attributes
    ----------
    rater : str
    item : str
        Name of the dialogue on the page.
    aspect : str
    preference : int
        1 for the first system, -1 for the second, 0 for neither.
    place : int
        1 where the reply preferred was shown as A, -1 as B, 0 for neither.
    """

    rater: str
    item: str
    aspect: str
    preference: int
    place: int


def read_key(path: str | Path) -> Key:
    """Read what `Key.write` wrote.

    Raises
    ------
    DialogueError
        If it is no such file.
    """
    path = Path(path)
    value = read_json(path, read_text(path))
    try:
        items = {
            name: KeyItem(str(item["dialogue"]), item["first"], tuple(item["aspects"]))
            for name, item in value["items"].items()
        }
        first, second = value["systems"]
        sound = all(item.first in SIDES and set(item.aspects) <= set(ASPECTS) for item in items.values())
        key = Key(text_field(value["test"], "test", ""), (str(first), str(second)), items) if sound else None
    except (AttributeError, KeyError, TypeError, ValueError):
        key = None
    if key is None:
        raise DialogueError(path, "is no key of a listening test", "give the listen_key.json that es4r listen wrote")
    return key


def read_ratings(paths: Iterable[str | Path], key: Key) -> tuple[list[Rating], list[tuple[Path, Rejection]]]:
    """Read results of raters.

    Arguments
    ---------
    paths : iterable of str or Path
        What raters downloaded from the page: .csv files, also as a spreadsheet saves them again (semicolons or tabs,
        a byte order mark).
    key : Key
        Of their test.

    Returns
    -------
    ratings : list of Rating
    left_out : list of (Path, Rejection)
        One for each row that is not used, and each file that holds no results: rows of another test, of unknown
        items, aspects or answers, rows that repeat one before them, and all rows that contradict one another.
    """
    rows: dict[tuple[str, str, str], list[tuple[Path, int, Rating]]] = {}
    left_out = []
    for path in map(Path, paths):
        try:
            lines = _lines(path)
        except FieldError as fault:
            left_out.append((path, Rejection("line 1", 1, fault.field, fault.problem, fault.mend)))
            continue
        for line, row in lines:
            try:
                rating = _read_rating(row, key)
            except FieldError as fault:
                left_out.append((path, Rejection(f"line {line}", line, fault.field, fault.problem, fault.mend)))
            else:
                rows.setdefault((rating.rater, rating.item, rating.aspect), []).append((path, line, rating))
    ratings = []
    for same in rows.values():
        kept, spare = _settle(same)
        ratings += kept
        left_out += spare
    return ratings, sorted(left_out, key=lambda one: (str(one[0]), one[1].line))


def _lines(path: Path) -> list[tuple[int, dict]]:
    try:
        text = read_text(path)
    except DialogueError as fault:
        raise FieldError("file", fault.problem, fault.mend) from None
    mend = "give the file that the page let the rater download"
    header = next(iter(text.splitlines()), "")
    delimiter = max(DELIMITERS, key=header.count)
    missing = [name for name in COLUMNS[:-1] if name not in next(csv.reader([header], delimiter=delimiter), [])]
    if missing:
        raise FieldError("file", f"has no column {', '.join(missing)}", mend)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as fault:
        raise FieldError("file", f"is no table ({fault})", mend) from None


def _read_rating(row: Mapping[str | None, str | None], key: Key) -> Rating:
    if None in row or None in row.values():
        raise FieldError("row", "has another number of fields than the header", "write the row as it was downloaded")
    if row["test"] != key.test:
        raise FieldError("test", f"is {row['test']!r}, not {key.test!r}", "give the key of that test")
    rater = text_field(row["rater"], "rater", "write who rated").strip()
    item = key.items.get(row["item"])
    if item is None:
        raise FieldError("item", f"{row['item']!r} is not in the key", "write the row as it was downloaded")
    if row["aspect"] not in ASPECTS:
        raise FieldError("aspect", f"{row['aspect']!r} is not known", f"write one of {', '.join(ASPECTS)}")
    if row["aspect"] not in item.aspects:
        raise FieldError("aspect", f"{row['aspect']!r} was not asked of item {row['item']!r}", "leave the row out")
    for field, known in (("answer", (*SIDES, SAME)), ("shown_first", SIDES)):
        if row[field] not in known:
            raise FieldError(field, f"is {row[field]!r}", f"write one of {', '.join(known)}")
    preference = _sign(row["answer"], item.first)
    return Rating(rater, row["item"], row["aspect"], preference, _sign(row["answer"], row["shown_first"]))


def _sign(answer: str, side: str) -> int:
    return 0 if answer == SAME else 1 if answer == side else -1


def _settle(same: list[tuple[Path, int, Rating]]) -> tuple[list[Rating], list[tuple[Path, Rejection]]]:
    """Of the rows on one question by one rater: what to keep, and what to leave out."""
    path, line, rating = same[0]
    whose = f"of {rating.rater!r} on {rating.aspect!r} of item {rating.item!r}"
    if all(other.preference == rating.preference for _, _, other in same):
        kept, spare = [rating], same[1:]
        problem, mend = f"{whose} repeats line {line} of {path.name!r}", "give each result once"
    else:
        kept, spare = [], same
        places = ", ".join(f"line {row} of {where.name!r}" for where, row, _ in same)
        problem, mend = f"{whose} is not the same in {places}", "ask the rater, and keep the row that is meant"
    return kept, [(where, Rejection(f"line {row}", row, "answer", problem, mend)) for where, row, _ in spare]
