"""Tables and the figure of a study: means over runs, their intervals, and differences to one variant."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.data.records import read_lines
from es4r_toolkit.data.representations import REPRESENTATIONS, read_representations
from es4r_toolkit.dialogue import Dialogue
from es4r_toolkit.errors import DialogueError
from es4r_toolkit.hparams import plain
from es4r_toolkit.metrics.bootstrap import LEVEL, RESAMPLES
from es4r_toolkit.metrics.cohesion import Cohesion
from es4r_toolkit.metrics.slots import SlotTable, chance, slots_right

SLOTS = ("affect", "trend", "topic")
ORACLE = "trend_from_last_affect"


@dataclass(frozen=True)
class Score:
    """One trained and tested model.

    Attributes
    ----------
    voices, run, variant : str
    right : dict of str to array (dialogues,)
        Slot -> whether each reply to the test set has it right.
    guess : dict of str to float
        Slot -> the accuracy of a guess; and ``trend_from_last_affect``, that
        of one who knows the last affect and nothing else.
    extra : dict of str to float
        BLEU-4, seconds of training, cohesion ratios and what a probe reads.
    curve : list of dict
        Scores on the validation set after each epoch.
    """

    voices: str
    run: str
    variant: str
    right: dict[str, np.ndarray]
    guess: dict[str, float]
    extra: dict[str, float | None]
    curve: list[dict] = field(default_factory=list)

    def record(self) -> dict[str, object]:
        """A line of ``runs.jsonl``, of which ``Score.of`` makes the score again."""
        right = {slot: "".join(str(int(hit)) for hit in self.right[slot]) for slot in SLOTS}
        names = {"voices": self.voices, "run": self.run, "variant": self.variant}
        return {**names, "right": right, "guess": self.guess, "extra": self.extra, "curve": self.curve}

    @classmethod
    def of(cls, record: Mapping) -> Score:
        """The score of a line of ``runs.jsonl``."""
        right = {slot: np.array([float(hit) for hit in record["right"][slot]]) for slot in SLOTS}
        given = (record[name] for name in ("guess", "extra", "curve"))
        return cls(record["voices"], record["run"], record["variant"], right, *given)

    def row(self) -> dict[str, object]:
        """A line of ``runs.csv``."""
        accuracies = {slot: round(float(self.right[slot].mean()), 4) for slot in SLOTS}
        rounded = {name: None if value is None else round(value, 4) for name, value in self.extra.items()}
        names = {"voices": self.voices, "run": self.run, "variant": self.variant}
        return {**names, **accuracies, "dialogues": len(self.right["affect"]), **rounded}


def read_score(voices: str, run: str, variant: str, folder: Path) -> Score:
    """What lies in the folder of a finished run."""
    lines = read_lines(folder / "predictions.jsonl")
    table = SlotTable.read(folder / "slots.json")
    hits = slots_right([line["response"] for line in lines], [line["slots"] for line in lines], table)
    history = read_lines(folder / "history.jsonl")
    extra: dict[str, float | None] = {
        "bleu4": json.loads((folder / "scores.json").read_text(encoding="utf-8"))["bleu4"],
        "train_seconds": sum(epoch["seconds"] for epoch in history),
    }
    for kind in ("before", "after"):
        extra |= {f"cohesion_{kind}": None, f"probe_{kind}": None}
    settings = plain((folder / "hyperparams.yaml").read_text(encoding="utf-8"))
    if (folder / REPRESENTATIONS).is_file():
        tested = read_manifest(settings["test_manifest"], check_audio=False).dialogues
        extra |= _diagnose(folder / REPRESENTATIONS, tested)
    corpus = json.loads((Path(settings["data_folder"]) / "corpus.json").read_text(encoding="utf-8"))
    guess = chance(table) | {ORACLE: corpus[ORACLE]}
    right = {slot: np.array(hits[slot], dtype=float) for slot in SLOTS}
    return Score(voices, run, variant, right, guess, extra, history)


def _diagnose(path: Path, dialogues: Sequence[Dialogue]) -> dict[str, float | None]:
    """Cohesion ratio, and the accuracy of a linear probe for the emotion of speaker turns, of each kind."""
    found, rejected = read_representations(path)
    if rejected or any(len(kind) != len(dialogues) for kind in found.values()):
        raise DialogueError(path, "does not fit the test set", "remove the run and train it again")
    scores: dict[str, float | None] = {}
    for kind, turns in found.items():
        scores[f"cohesion_{kind}"] = Cohesion(turns).ratio
        # Only the newest turns are there where the window was too short for all.
        heard = [dialogue.history[-len(vectors) :] for dialogue, vectors in zip(dialogues, turns)]
        spoken = [
            (vector, turn.emotion, turn.text)
            for vectors, history in zip(turns, heard)
            for vector, turn in zip(vectors, history)
            if turn.is_speaker and turn.emotion is not None
        ]
        if spoken:
            vectors, labels, texts = zip(*spoken)
            # Recorded dialogues share their clips: those of one sentence and emotion stay together.
            scores[f"probe_{kind}"] = probe(np.stack(vectors), labels, list(zip(labels, texts)))
    return scores


def probe(
    turns: np.ndarray, labels: Sequence[str], groups: Sequence[Hashable], folds: int = 5, ridge: float = 0.01
) -> float:
    """Accuracy of a ridge classifier of turns, fitted on other groups than it is tested on.

    Arguments
    ---------
    turns : array (N, F)
    labels : sequence of str
        A label for each turn.
    groups : sequence
        What each turn belongs to; no group is in two folds.
    folds : int
    ridge : float
        Penalty on the squared weights, for each turn that it is fitted on.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> labels = ["low", "high"] * 20
    >>> turns = rng.normal(size=(40, 3)) + np.array([[0], [9]] * 20)
    >>> probe(turns, labels, groups=range(40))
    1.0
    """
    names, known_groups = sorted(set(labels)), {group: place for place, group in enumerate(dict.fromkeys(groups))}
    wanted = np.array([names.index(label) for label in labels])
    fold = np.array([known_groups[group] % folds for group in groups])
    right = 0
    for number in np.unique(fold):
        fit = fold != number
        mean, deviation = turns[fit].mean(axis=0), turns[fit].std(axis=0) + 1e-8
        known, unknown = ((turns[part] - mean) / deviation for part in (fit, ~fit))
        targets = np.eye(len(names))[wanted[fit]]
        centre = targets.mean(axis=0)
        gram = known.T @ known + ridge * len(known) * np.eye(known.shape[1])
        weights = np.linalg.solve(gram, known.T @ (targets - centre))
        right += int(((unknown @ weights + centre).argmax(axis=1) == wanted[~fit]).sum())
    return right / len(wanted)


def summarize(scores: Sequence[Score], plan: Mapping) -> dict:
    """Voices -> variant -> mean over the runs, interval and difference to the reference, for each slot.

    The interval (95 %) is of a bootstrap over runs and, within each, over
    dialogues; that of a difference resamples the same dialogues of both.
    Three runs say little of how far runs differ: where their standard
    deviation is 0.06, such an interval of three runs of 200 dialogues holds
    the truth in 86 % of cases.
    """
    summary: dict = {"reference": plan["reference"], "budget": {}, "voices": {}}
    for voices, made in plan["voices"].items():
        of_voices = [score for score in scores if score.voices == voices]
        if not of_voices:
            continue
        summary["budget"][voices] = made["settings"]
        reference = {score.run: score for score in of_voices if score.variant == plan["reference"]}
        variants = {}
        for variant in plan["variants"]:
            runs = [score for score in of_voices if score.variant == variant]
            if runs:
                variants[variant] = _variant(runs, reference)
        # Corpora of recordings have more or fewer topics from fold to fold.
        guess = {
            name: round(float(np.mean([score.guess[name] for score in of_voices])), 4) for name in (*SLOTS, ORACLE)
        }
        summary["voices"][voices] = {"chance": guess, "variants": variants}
    return summary


def _variant(runs: Sequence[Score], reference: Mapping[str, Score]) -> dict:
    row: dict = {"runs": [score.run for score in runs]}
    paired = [(score, reference[score.run]) for score in runs if score.run in reference]
    for slot in SLOTS:
        hits = [score.right[slot] for score in runs]
        row[slot] = _mean(hits) | {"each": [round(float(run.mean()), 4) for run in hits]}
        if paired and runs[0].variant != paired[0][1].variant:
            row[slot]["difference"] = _mean([score.right[slot] - other.right[slot] for score, other in paired])
    for name in runs[0].extra:
        values = [score.extra[name] for score in runs]
        row[name] = None if None in values else round(float(np.mean(values)), 4)
    epochs = zip(*(score.curve for score in runs))
    row["curve"] = [
        {slot: round(float(np.mean([epoch[slot] for epoch in same])), 4) for slot in SLOTS} for same in epochs
    ]
    return row


def _mean(runs: Sequence[np.ndarray]) -> dict:
    rng = np.random.default_rng(0)
    means = np.zeros(RESAMPLES)
    for _ in runs:
        # One of the runs for each resample, and some of its dialogues, anew where a run is drawn twice.
        resampled = np.stack([run[rng.integers(len(run), size=(RESAMPLES, len(run)))].mean(axis=1) for run in runs])
        means += resampled[rng.integers(len(runs), size=RESAMPLES), np.arange(RESAMPLES)] / len(runs)
    tails = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"mean": round(float(np.mean([run.mean() for run in runs])), 4), "interval": tails.round(4).tolist()}


def markdown(summary: Mapping) -> str:
    """The table as Markdown, voices below one another."""
    lines = []
    for voices, part in summary["voices"].items():
        budget = ", ".join(f"{key} {value}" for key, value in summary["budget"][voices].items() if key != "corpus")
        count = max(len(row["runs"]) for row in part["variants"].values())
        lines += [f"**{voices}** ({budget}; mean of {count} runs and 95 % interval)", ""]
        reference = summary["reference"]
        heads = ["variant", *SLOTS, f"affect against {reference}", f"trend against {reference}"]
        heads += ["cohesion before, after", "probe before, after"]
        lines += [_row(heads), "|---" * len(heads) + "|"]
        for variant, row in part["variants"].items():
            name = variant if len(row["runs"]) == count else f"{variant} ({len(row['runs'])} runs)"
            against = [row[slot].get("difference") for slot in ("affect", "trend")]
            differences = [_cell(difference, sign="+") if difference else "" for difference in against]
            pairs = [[row[f"{what}_{kind}"] for kind in ("before", "after")] for what in ("cohesion", "probe")]
            shown = [", ".join("-" if value is None else f"{value:.2f}" for value in pair) for pair in pairs]
            lines.append(_row([name, *(_cell(row[slot]) for slot in SLOTS), *differences, *shown]))
        guess = part["chance"]
        lines.append(_row(["*chance*", *(f"{guess[slot]:.3f}" for slot in SLOTS), "", "", "", ""]))
        lines += [_row(["*trend from the last affect*", "", f"{guess[ORACLE]:.3f}", "", "", "", "", ""]), ""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Mapping, sign: str = "") -> str:
    low, high = value["interval"]
    return f"{value['mean']:{sign}.3f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def figure(summary: Mapping, path: Path) -> None:
    """Means and intervals of affect and trend, a panel for each kind of voices, single runs as small dots."""
    parts = summary["voices"]
    most = max(len(part["variants"]) for part in parts.values())
    page = Figure(figsize=(10, 0.9 + len(parts) * (1.1 + 0.27 * most)), layout="constrained")
    grid = page.subplots(len(parts), 2, squeeze=False, sharex=True)
    for row, (voices, part) in zip(grid, parts.items()):
        names = list(part["variants"])
        for axes, slot in zip(row, ("affect", "trend")):
            reference = part["variants"].get(summary["reference"])
            if reference:
                axes.axvspan(*reference[slot]["interval"], color="#1f6f8b", alpha=0.1, linewidth=0)
            axes.axvline(part["chance"][slot], color="#888888", linestyle=":", linewidth=1.2)
            if slot == "trend":
                axes.axvline(part["chance"][ORACLE], color="#888888", linestyle="--", linewidth=1.2)
            for place, name in enumerate(names):
                value = part["variants"][name][slot]
                colour = "#1f6f8b" if name == summary["reference"] else "#333333"
                axes.plot(value["interval"], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
                axes.plot(value["mean"], place, "o", color=colour, markersize=6)
                axes.plot(value["each"], [place + 0.24] * len(value["each"]), ".", color="#999999", markersize=4)
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_xlim(0, 1)
            axes.grid(axis="x", color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.set_title(f"{slot}, {voices} voices", fontsize=11)
            axes.set_xlabel("accuracy on unseen speakers", fontsize=10)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
    key = "dots: mean and 95 % interval; small dots: single runs; dotted: chance; dashed: trend from the last affect"
    page.suptitle(f"{key}; shaded: {summary['reference']}", fontsize=9.5)
    page.savefig(path, dpi=150)
