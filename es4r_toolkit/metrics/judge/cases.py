"""What is to be judged: predictions, with the dialogues that they answer where those are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from es4r_toolkit.data.manifest import AS_THEY_STAND, read_manifest
from es4r_toolkit.data.predictions import Prediction, read_predictions
from es4r_toolkit.data.records import Rejection
from es4r_toolkit.data.tables import TableOptions
from es4r_toolkit.dialogue import Dialogue
from es4r_toolkit.errors import DialogueError
from es4r_toolkit.metrics.comparison import pair, unpaired
from es4r_toolkit.metrics.judge.prompts import Case


@dataclass(frozen=True)
class Cases:
    """What two files hold for a judge.

    Attributes
    ----------
    good : list of Case
        In the order of the first file.
    faults : list of DialogueError
        One for each record that is left out, with its file.
    notes : list of str
        What else a reader should know.
    """

    good: list[Case]
    faults: list[DialogueError]
    notes: list[str]


def read_cases(
    predictions: Path,
    against: Path | None = None,
    dialogues: Path | None = None,
    table: TableOptions = AS_THEY_STAND,
) -> Cases:
    """Read replies, those of another system beside them where they are compared, and what they answer.

    Arguments
    ---------
    predictions : Path
        Of the system that is judged.
    against : Path or None
        Of another system on the same dialogues; paired as ``compare`` does.
    dialogues : Path or None
        A manifest of the dialogues, found by id; it needs no recordings, and none is looked at. None leaves each reply
        with its reference.
    table : TableOptions
        How a table of dialogues is read.

    Raises
    ------
    DialogueError
        If a file as a whole cannot be read, or the two systems cannot be paired.
    """
    first, rejected = read_predictions(predictions)
    faults, notes = [one.error(predictions) for one in rejected], []
    replies = {id(one): (one.response,) for one in first}
    if against is not None:
        second, rejected = read_predictions(against)
        faults += [one.error(against) for one in rejected]
        pairs, only_first, only_second = pair(first, second)
        notes += unpaired({str(predictions): only_first, str(against): only_second})
        first = [one for one, _ in pairs]
        replies = {id(one): (one.response, other.response) for one, other in pairs}
    known = None if dialogues is None else _by_id(dialogues, table, notes)
    good = []
    for one in first:
        if known is not None and (not one.named or one.item not in known):
            faults.append(_without_dialogue(one, dialogues).error(predictions))
            continue
        history = None if known is None else known[one.item].history
        good.append(Case(one.item, replies[id(one)], one.reference, history))
    return Cases(good, faults, notes)


def _by_id(dialogues: Path, table: TableOptions, notes: list[str]) -> dict[str, Dialogue]:
    report = read_manifest(dialogues, need_audio=False, check_audio=False, table=table)
    if report.rejected:
        first = report.rejected[0].error(dialogues)
        notes.append(f"dialogues of {dialogues} left out: {len(report.rejected)}, the first: {first}")
    return {dialogue.id: dialogue for dialogue in report.dialogues}


def _without_dialogue(prediction: Prediction, dialogues: Path) -> Rejection:
    if not prediction.named:
        return Rejection(prediction.item, prediction.line, "id", "is missing", "write the id of its dialogue")
    mend = "give the manifest that was answered, or none to judge by the reference"
    return Rejection(prediction.item, prediction.line, "id", f"is that of no good dialogue of {dialogues}", mend)
