"""DemoReport, AnsweredDialogue, AnsweredTurn: what a report shows, checked before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from es4r_toolkit.dialogue import ROLES, SPEAKER
from es4r_toolkit.errors import AudioError, ConfigError, DialogueError

Samples = torch.Tensor | np.ndarray
STRATEGY_TURNS = ("all", SPEAKER)


@dataclass(frozen=True)
class AnsweredTurn:
    """One turn of the history, with what the model measured of it.

    Attributes
    ----------
    role : str
        ``speaker`` or ``listener``.
    text : str
        The transcript.
    waveform : Tensor or ndarray (samples,), or None
        The recording, full scale at 1.
    sample_rate : int
        Hz.
    energy : float
        Energy of the turn, as the strategy selector measured it.
    emotion : str or None
        The corpus's label, where it has one.
    style_weight : float
        Share of this turn in the reply's voice style; 0 for all turns where the voice takes no style.
    """

    role: str
    text: str
    waveform: Samples | None
    sample_rate: int
    energy: float
    emotion: str | None = None
    style_weight: float = 0.0


@dataclass(frozen=True)
class AnsweredDialogue:
    """A history, the model's reply and how the reply came about.

    Attributes
    ----------
    id : str
        The dialogue's id in its manifest.
    turns : sequence of AnsweredTurn
        The history, oldest first.
    reply_text : str
        What the model wrote.
    reply_waveform : Tensor or ndarray (samples,), or None
        What the voice spoke, full scale at 1.
    reply_sample_rate : int
        Hz.
    reference : str or None
        The corpus's reply.
    slots, predicted_slots : dict
        Slot -> value the reply should say, and the value it does say or None.
    strategy : str
        The speaking strategy chosen.
    strategy_weights : dict of str to float
        Share of each strategy.
    energy_change : float
        Change of energy per turn, relative to the mean energy (-0.06 falls by 6%).
    prosody : dict of str to float
        ``rate`` and ``expressiveness`` (factors), ``pitch_shift`` (semitones), ``energy`` (dB).
    timings : dict of str to float
        Stage -> seconds.
    attention : Tensor or ndarray (L, T), or None
        How much each of L speech positions looks at each of T text tokens.
    tokens : sequence of str
        The T tokens.
    turn_of_token, turn_of_position : sequence of int
        Index of the turn, from 0, of each token and each speech position; -1 for a token of the prompt's frame.
    strategy_turns : str
        ``all`` or ``speaker``: which turns the energy change was taken over.
    """

    id: str
    turns: Sequence[AnsweredTurn]
    reply_text: str
    reply_waveform: Samples | None
    reply_sample_rate: int
    reference: str | None
    slots: Mapping[str, str]
    predicted_slots: Mapping[str, str | None]
    strategy: str
    strategy_weights: Mapping[str, float]
    energy_change: float
    prosody: Mapping[str, float]
    timings: Mapping[str, float]
    attention: Samples | None = None
    tokens: Sequence[str] = ()
    turn_of_token: Sequence[int] = ()
    turn_of_position: Sequence[int] = ()
    strategy_turns: str = "all"


@dataclass(frozen=True)
class EnergyPath:
    """How the energy of one dialogue moves, and what was chosen by it.

    Attributes
    ----------
    strategy : str
    energies : sequence of float
        Of the turns it was chosen by, oldest first.
    """

    strategy: str
    energies: Sequence[float]


@dataclass(frozen=True)
class DemoReport:
    """Everything a report shows of a run: its results on held-out dialogues, and some of these answered.

    Attributes
    ----------
    title : str
        The page's heading.
    summary : dict
        Run name -> {metric: value}, slot accuracies as shares from 0 to 1. A run may hold ``count``, the number of
        dialogues judged: its bars then carry 95% intervals. ``chance`` holds the accuracy of guessing per slot and,
        as ``<slot>_from_<what>``, of an oracle that knows only ``what``. ``seconds`` is the whole run's time; other
        scalars are listed.
    histories : dict
        Run name -> one dict an epoch, with any of ``epoch``, ``train_loss``, ``valid_loss``, ``seconds``, ``bleu4``
        and the slots.
    dialogues : sequence of AnsweredDialogue
        The dialogues to show; the page says of them that training never saw them.
    confusion : dict or None
        Slot -> (labels, counts (n, n) or (n, n + 1)): rows are the reference, columns the reply; a last extra column
        counts replies that name no value.
    notes : sequence of str
        Remarks for the reader.
    twins : sequence of AnsweredDialogue
        Dialogues of the same words, spoken otherwise.
    energy_paths : sequence of EnergyPath
        Of all dialogues that were answered.
    representations : dict
        Kind, ``before`` and ``after`` the dual attention -> an array (turns, F) for each dialogue.
    """

    title: str
    summary: Mapping[str, Any]
    histories: Mapping[str, Sequence[Mapping[str, float | None]]] = field(default_factory=dict)
    dialogues: Sequence[AnsweredDialogue] = ()
    confusion: Mapping[str, tuple[Sequence[str], Any]] | None = None
    notes: Sequence[str] = ()
    twins: Sequence[AnsweredDialogue] = ()
    energy_paths: Sequence[EnergyPath] = ()
    representations: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)


def as_array(values: Samples) -> np.ndarray:
    """Tensor or array of any float type and device -> float64 array.

    Example
    -------
    >>> as_array(torch.ones(2, dtype=torch.bfloat16))
    array([1., 1.])
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().double().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def is_number(value: object) -> bool:
    """Whether a value is a finite number.

    Example
    -------
    >>> is_number(1), is_number(float("nan")), is_number(None), is_number(True)
    (True, False, False, False)
    """
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)


def check_report(report: DemoReport) -> None:
    """Raise for the first thing in a report that cannot be shown truthfully.

    Raises
    ------
    AudioError, ConfigError, DialogueError
        Naming the run or the dialogue and turn, the value seen and its bound.
    """
    chance = report.summary.get("chance", {})
    for run, metrics in report.summary.items():
        if not isinstance(metrics, Mapping):
            continue
        for name, value in metrics.items():
            if (name in chance or run == "chance") and is_number(value) and not 0 <= value <= 1:
                raise ConfigError(f"summary[{run}][{name}]", f"got {value}", "accuracies are shares from 0 to 1")
    for slot, (labels, counts) in (report.confusion or {}).items():
        shape, size = np.shape(counts), len(labels)
        if not size or shape not in ((size, size), (size, size + 1)):
            raise ConfigError(
                f"confusion[{slot}]", f"{size} labels, but counts of shape {shape}", f"give ({size}, {size}) counts"
            )
    for dialogue in [*report.dialogues, *report.twins]:
        _check_dialogue(dialogue)
    said = {tuple(turn.text for turn in dialogue.turns) for dialogue in report.twins}
    if len(said) > 1:
        raise DialogueError(report.twins[1].id, "has other words than its twin", "give dialogues of the same words")


def _check_dialogue(dialogue: AnsweredDialogue) -> None:
    if not dialogue.turns:
        raise DialogueError(dialogue.id, "has no turns", "a report shows the history before the reply")
    if dialogue.strategy_turns not in STRATEGY_TURNS:
        raise DialogueError(
            dialogue.id, f"strategy_turns is {dialogue.strategy_turns!r}", f"must be one of {STRATEGY_TURNS}"
        )
    if not is_number(dialogue.energy_change):
        raise DialogueError(dialogue.id, f"energy_change is {dialogue.energy_change!r}", "give a finite number")
    for number, turn in enumerate(dialogue.turns, start=1):
        place = f"{dialogue.id}, turn {number}"
        if turn.role not in ROLES:
            raise DialogueError(place, f"role is {turn.role!r}", f"must be one of {ROLES}")
        for name in ("energy", "style_weight"):
            value = getattr(turn, name)
            if not is_number(value) or value < 0:
                raise DialogueError(place, f"{name} is {value!r}", "give a finite number, 0 or more")
        _check_audio(place, turn.waveform, turn.sample_rate)
    _check_audio(f"{dialogue.id}, reply", dialogue.reply_waveform, dialogue.reply_sample_rate)
    if dialogue.attention is not None:
        _check_attention(dialogue)


def _check_audio(place: str, waveform: Samples | None, sample_rate: int) -> None:
    if waveform is None:
        return
    if len(np.shape(waveform)) != 1:
        raise AudioError(place, f"waveform has shape {tuple(np.shape(waveform))}", "give one channel, (samples,)")
    if int(sample_rate) != sample_rate or not 1000 <= sample_rate <= 192_000:
        raise AudioError(place, f"sample rate is {sample_rate!r}", "give whole Hz from 1000 to 192000")
    bad = int(np.count_nonzero(~np.isfinite(as_array(waveform))))
    if bad:
        raise AudioError(place, f"{bad} samples are not finite", "look for a division by zero in the voice")


def _check_attention(dialogue: AnsweredDialogue) -> None:
    weights = as_array(dialogue.attention)
    seen = (len(dialogue.turn_of_position), len(dialogue.tokens))
    if weights.shape != seen or len(dialogue.turn_of_token) != len(dialogue.tokens) or 0 in seen:
        raise DialogueError(
            dialogue.id,
            f"attention has shape {weights.shape} for {seen[0]} speech positions, {seen[1]} tokens and "
            f"{len(dialogue.turn_of_token)} turns of tokens",
            "give (positions, tokens), neither empty",
        )
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise DialogueError(dialogue.id, "attention holds weights below 0 or not finite", "give the softmax's output")
    for name in ("turn_of_token", "turn_of_position"):
        outside = [turn for turn in getattr(dialogue, name) if not -1 <= turn < len(dialogue.turns)]
        if outside:
            raise DialogueError(
                dialogue.id, f"{name} holds {outside[0]}", f"must be -1 or a turn from 0 to {len(dialogue.turns) - 1}"
            )
