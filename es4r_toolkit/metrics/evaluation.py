"""Evaluation of a file of predictions: text scores, and slot accuracies where slots are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from es4r_toolkit.data.predictions import Prediction, read_predictions
from es4r_toolkit.data.recordings import Progress, unseen
from es4r_toolkit.data.records import Rejection
from es4r_toolkit.data.representations import REPRESENTATIONS, read_representations
from es4r_toolkit.errors import BackendError, ConfigError, DialogueError
from es4r_toolkit.metrics.cohesion import Cohesion
from es4r_toolkit.metrics.comparison import compare, unpaired
from es4r_toolkit.metrics.examples import Example, examples
from es4r_toolkit.metrics.meteor import Meteor
from es4r_toolkit.metrics.slots import SlotTable, chance, slot_accuracies, slot_intervals
from es4r_toolkit.metrics.text import PairScorer, TextScores

if TYPE_CHECKING:
    from es4r_toolkit.backends.bertscore import BertScore

SLOT_TABLE = "slots.json"


@dataclass(frozen=True)
class Evaluation:
    """What a file of predictions scored.

    Attributes
    ----------
    metrics : dict
        ``scored``, ``rejected`` and ``empty_replies`` (counts), the keys of `text_scores`, ``meteor`` where NLTK has
        a WordNet, ``bertscore`` and ``bertscore_settings`` where it was asked for, and their ``interval`` where
        anything was scored, ``slot_accuracy``, ``slot_interval`` and ``slot_chance`` where slots were,
        ``cohesion_ratio`` and ``cohesion_interval`` where there are representations, ``comparison`` where there is
        another system. Intervals are [low, high], of the
        bootstrap at 95 %.
    rejected : list of Rejection
        The records left out, of the predictions.
    unlike : list of Rejection
        Those left out of the representations.
    examples : list of Example
        What was scored, the worst first; of both systems where there is another.
    notes : list of str
        What a reader should know of the metrics that are not there.
    """

    metrics: dict[str, object]
    rejected: list[Rejection]
    notes: list[str]
    unlike: list[Rejection] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)


def evaluate(
    path: str | Path,
    slots: str | Path | None = None,
    representations: str | Path | None = None,
    other: str | Path | None = None,
    bertscore: BertScore | None = None,
    progress: Progress = unseen,
) -> Evaluation:
    """Score a .jsonl or .json file of ``{response, reference, slots?}`` records.

    Arguments
    ---------
    path : str or Path
        The predictions.
    slots : str or Path or None
        The slot table; None takes the ``slots.json`` beside the predictions, where there is one.
    representations : str or Path or None
        What the model made of each turn; None takes the ``representations.jsonl`` beside the predictions, where there
        is one.
    other : str or Path or None
        Predictions of another system on the same dialogues, to compare with.
    bertscore : BertScore, optional
        The model that BERTScore is taken by.
    progress : callable
        Wraps what BERTScore goes through, given ``unit`` and ``total`` too, to show how far it is.

    Raises
    ------
    DialogueError
        If the predictions, the slot table or the representations cannot be read as a whole.
    """
    path = Path(path)
    predictions, rejected = read_predictions(path)
    beside = path.with_name(SLOT_TABLE)
    slots = beside if slots is None and beside.exists() else slots
    table = None if slots is None else SlotTable.read(slots)
    if table is not None:
        predictions, misnamed = _check_slots(predictions, table)
        rejected = sorted([*rejected, *misnamed], key=lambda rejection: rejection.line)
    texts = [prediction.response for prediction in predictions]
    metrics: dict[str, object] = {
        "scored": len(texts),
        "rejected": len(rejected),
        "empty_replies": sum(not text.strip() for text in texts),
    }
    more, missing_scorers = _pair_scorers(bertscore, progress)
    notes = []
    if texts:
        scored = TextScores(texts, [prediction.reference for prediction in predictions], more)
        metrics |= scored.corpus()
        metrics["interval"] = _rounded(scored.intervals())
    if texts and bertscore is not None:
        metrics["bertscore_settings"] = bertscore.settings
    if metrics["empty_replies"]:
        notes.append(f"empty replies score 0 ({metrics['empty_replies']}); the paper's script leaves such out")
    with_slots = [prediction for prediction in predictions if prediction.slots]
    if with_slots and table is None:
        notes.append(f"{len(with_slots)} predictions have slots but there is no {SLOT_TABLE}: no slot accuracies")
    elif with_slots:
        replies, wanted = [p.response for p in with_slots], [p.slots for p in with_slots]
        accuracies, by_chance = slot_accuracies(replies, wanted, table), chance(table)
        metrics["slot_accuracy"] = accuracies
        metrics["slot_interval"] = _rounded(slot_intervals(replies, wanted, table))
        metrics["slot_chance"] = {slot: by_chance[slot] for slot in accuracies}
    elif table is not None:
        notes.append(f"no prediction has slots: {slots} was not used")
    shown: list[Example] = []
    if other is not None and texts:
        metrics["comparison"], shown, others = _compare(predictions, Path(other), table, more)
        notes += others
    elif texts:
        shown = examples([predictions], table, [scored.each["rougeL"]])
    beside = path.with_name(REPRESENTATIONS)
    representations = beside if representations is None and beside.exists() else representations
    unlike: list[Rejection] = []
    if representations is not None:
        scores, unlike, missing = _cohesion(representations)
        metrics |= scores
        notes += missing
    return Evaluation(metrics, rejected, [*notes, *missing_scorers], unlike, shown)


def _pair_scorers(bertscore: BertScore | None, progress: Progress) -> tuple[dict[str, PairScorer], list[str]]:
    """METEOR and BERTScore, where there are such, and why there are not."""
    scorers: dict[str, PairScorer] = {}
    notes = []
    try:
        scorers["meteor"] = Meteor()
    except BackendError as fault:
        notes.append(f"no METEOR: {fault.item} {fault.problem}; {fault.mend}")
    if bertscore is not None:
        scorers["bertscore"] = partial(bertscore, progress=progress)
    return scorers, notes


def _compare(
    predictions: list[Prediction], path: Path, table: SlotTable | None, more: Mapping[str, PairScorer]
) -> tuple[dict[str, object], list[Example], list[str]]:
    others, rejected = read_predictions(path)
    found = compare(predictions, others, table if any(one.slots for one in predictions) else None, more=more)
    notes = [f"{path}: predictions left out: {len(rejected)}, the first {rejected[0].item}"] if rejected else []
    notes += unpaired({"this file": found.only_first, path.name: found.only_second})
    metrics = {name: difference.as_dict() for name, difference in found.metrics.items()}
    shown = examples(list(zip(*found.pairs)), table, found.rouge)
    return {"other": str(path), "paired": found.paired, "metrics": metrics}, shown, notes


def _cohesion(path: str | Path) -> tuple[dict[str, object], list[Rejection], list[str]]:
    """Scores of each kind of representation, the records left out, and why a kind has no score."""
    found, rejected = read_representations(path)
    ratios, intervals, notes = {}, {}, []
    for kind, dialogues in found.items():
        try:
            cohesion = Cohesion(dialogues)
        except ConfigError as fault:
            notes.append(f"no cohesion ratio of {kind}: {fault}")
            continue
        if cohesion.ratio is None:
            notes.append(f"no cohesion ratio of {kind}: turns of different dialogues are not alike")
            continue
        ratios[kind], between = cohesion.ratio, cohesion.interval()
        if between is not None:
            intervals[kind] = between
    return {"cohesion_ratio": ratios, "cohesion_interval": _rounded(intervals)} if ratios else {}, rejected, notes


def _rounded(intervals: dict[str, tuple[float, float]]) -> dict[str, list[float]]:
    return {name: [round(low, 4), round(high, 4)] for name, (low, high) in intervals.items()}


def _check_slots(predictions: list[Prediction], table: SlotTable) -> tuple[list[Prediction], list[Rejection]]:
    good, rejected = [], []
    for prediction in predictions:
        try:
            table.check(prediction.slots)
            good.append(prediction)
        except DialogueError as error:
            rejected.append(Rejection(prediction.item, prediction.line, error.item, error.problem, error.mend))
    return good, rejected
