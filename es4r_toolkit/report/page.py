"""write_report: a DemoReport as one HTML page that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from es4r_toolkit.report import plots, sound
from es4r_toolkit.report.content import AnsweredDialogue, DemoReport, check_report, is_number
from es4r_toolkit.report.corpus_plots import cohesion_maps, energy_trajectories
from es4r_toolkit.report.dialogue_plots import attention_map, attention_scale, energy_path, energy_words
from es4r_toolkit.report.pages import render_template, write_page
from es4r_toolkit.report.pictures import STRATEGY_COLOURS, colours

MAX_DIALOGUES = 24
RUN_NAMES = {"plus": "plus preset", "paper": "paper preset", "text_only": "text only"}
SLOT_ORDER = ("topic", "affect", "trend")
ORACLE = "_from_"


def write_report(path: str | Path, report: DemoReport) -> Path:
    """Write a report as one self-contained HTML page.

    Arguments
    ---------
    path : str or Path
        The file to write; its folder is made where it is missing.
    report : DemoReport
        What to show. At most ``MAX_DIALOGUES`` dialogues are shown, and the page says how many were left out.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    AudioError, ConfigError, DialogueError
        If the report cannot be shown truthfully, or the file cannot be written.

    Example
    -------
    >>> import tempfile
    >>> report = DemoReport("A demonstration", {"plus": {"topic": 0.9}, "chance": {"topic": 0.125}})
    >>> page = write_report(Path(tempfile.mkdtemp()) / "report.html", report)
    >>> "A demonstration" in page.read_text(encoding="utf-8")
    True
    """
    return write_page(path, render(report))


def render(report: DemoReport) -> str:
    """The page of a report as a string; every text is escaped."""
    check_report(report)
    shown = report.dialogues[:MAX_DIALOGUES]
    return render_template(
        "template.html",
        {"metric": _metric, "duration": _duration},
        title=report.title,
        notes=[*report.notes, *_remarks(report)],
        results=_results(report.summary),
        curves=_curves(report),
        confusions=[
            (slot, plots.confusion_table(slot, labels, counts))
            for slot, (labels, counts) in (report.confusion or {}).items()
        ],
        dialogues=[_dialogue(number, dialogue) for number, dialogue in enumerate(shown, start=1)],
        twins=_twins(report.twins),
        energies=energy_trajectories(report.energy_paths),
        cohesion=cohesion_maps(dict(report.representations)),
        bars=sound.OUTLINE_BARS,
    )


def _runs(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = {name: metrics for name, metrics in summary.items() if isinstance(metrics, Mapping) and name != "chance"}
    first = [name for name in ("plus", "paper") if name in found]
    last = [name for name in ("text_only",) if name in found]
    return {name: found[name] for name in [*first, *(name for name in found if name not in RUN_NAMES), *last]}


def _names(runs: Mapping[str, Any]) -> dict[str, str]:
    return {name: RUN_NAMES.get(name, name.replace("_", " ")) for name in runs}


def _slots(chance: Mapping[str, Any]) -> list[str]:
    known = [name for name in chance if ORACLE not in name]
    return [*(slot for slot in SLOT_ORDER if slot in known), *(slot for slot in known if slot not in SLOT_ORDER)]


def _results(summary: Mapping[str, Any]) -> dict[str, Any]:
    runs, chance = _runs(summary), summary.get("chance", {})
    names = _names(runs)
    slots = [slot for slot in _slots(chance) if any(slot in metrics for metrics in runs.values())]
    others = list(dict.fromkeys(name for metrics in runs.values() for name in metrics if name not in slots))
    oracles = {}
    for name, level in chance.items():
        slot, mark, known = name.partition(ORACLE)
        if mark and slot in slots and is_number(level):
            oracles[slot] = (known.replace("_", " "), float(level))
    rows = [(names[run], [metrics.get(name) for name in [*slots, *others]]) for run, metrics in runs.items()]
    blank = [None] * len(others)
    for slot, (known, level) in oracles.items():
        rows.append((f"oracle: {slot} from {known}", [level if name == slot else None for name in slots] + blank))
    if slots:
        rows.append(("chance", [chance[slot] for slot in slots] + blank))
    main = next(iter(runs), None)
    return {
        "slots": slots,
        "others": others,
        "rows": rows,
        "oracles": bool(oracles),
        "counted": any(is_number(metrics.get("count")) for metrics in runs.values()),
        "main": names.get(main),
        "headline": [
            (
                slot,
                runs[main].get(slot),
                chance[slot],
                runs.get("text_only", {}).get(slot) if main != "text_only" else None,
            )
            for slot in slots
        ],
        "chart": plots.slot_bars(runs, names, slots, chance, oracles) if runs and slots else None,
        "seconds": summary.get("seconds"),
        "scalars": [
            (name.replace("_", " ").capitalize(), value)
            for name, value in summary.items()
            if not isinstance(value, Mapping) and name != "seconds"
        ],
    }


def _curves(report: DemoReport) -> list[tuple[str, plots.Picture]]:
    histories, chance = report.histories, report.summary.get("chance", {})
    names, slots = _names(histories), _slots(chance)
    figures = [("Loss (training dashed, validation solid)", plots.loss_curves(histories, names))]
    for slot in slots:
        figures.append((f"Accuracy of {slot}", plots.metric_curves(histories, names, slot, chance[slot], True)))
    figures.append(("BLEU-4", plots.metric_curves(histories, names, "bleu4", None, False)))
    return [(caption, figure) for caption, figure in figures if figure is not None]


def _remarks(report: DemoReport) -> list[str]:
    """What the page leaves out, said on the page."""
    remarks = []
    left_out = len(report.dialogues) - MAX_DIALOGUES
    if left_out > 0:
        remarks.append(f"The first {MAX_DIALOGUES} of {len(report.dialogues)} dialogues are shown.")
    for run, history in report.histories.items():
        gaps = [
            f"{key} of epoch {epoch.get('epoch', place)} is {value}"
            for place, epoch in enumerate(history, start=1)
            for key, value in epoch.items()
            if value is not None and not is_number(value)
        ]
        if gaps:
            remarks.append(f"Training of {run}: {gaps[0]}; values that no curve can show: {len(gaps)}.")
    return remarks


def _twins(twins: Sequence[AnsweredDialogue]) -> list[dict[str, Any]]:
    scale = max((attention_scale(twin) for twin in twins), default=0.0)
    loudest = max((sound.peak(turn.waveform) for twin in twins for turn in twin.turns), default=1.0)
    return [
        {
            "affect": twin.slots.get("affect", twin.turns[-1].emotion or "not told"),
            "text": twin.turns[-1].text,
            "clip": sound.clip(twin.turns[-1].waveform, twin.turns[-1].sample_rate, loudest),
            "reply": twin.reply_text,
            "attention": attention_map(twin, scale),
        }
        for twin in twins
    ]


def _dialogue(number: int, dialogue: AnsweredDialogue) -> dict[str, Any]:
    loudest = max([sound.peak(turn.waveform) for turn in dialogue.turns] + [sound.peak(dialogue.reply_waveform)])
    styled = sum(turn.style_weight for turn in dialogue.turns)
    slots = list(dict.fromkeys([*dialogue.slots, *dialogue.predicted_slots]))
    paint = colours([*dialogue.strategy_weights, dialogue.strategy], STRATEGY_COLOURS)
    return {
        "number": number,
        "id": dialogue.id,
        "turns": [
            {
                "number": place,
                "role": turn.role,
                "text": turn.text,
                "emotion": turn.emotion,
                "clip": sound.clip(turn.waveform, turn.sample_rate, loudest),
                "style": turn.style_weight / styled if styled else None,
            }
            for place, turn in enumerate(dialogue.turns, start=1)
        ],
        "reply": dialogue.reply_text,
        "reply_clip": sound.clip(dialogue.reply_waveform, dialogue.reply_sample_rate, loudest),
        "reference": dialogue.reference,
        "slots": [_verdict(slot, dialogue) for slot in slots],
        "strategy": dialogue.strategy,
        "colour": paint[dialogue.strategy],
        "decision": energy_words(dialogue),
        "weights": [(name, weight, paint[name]) for name, weight in dialogue.strategy_weights.items()],
        "prosody": [_prosody(name, value) for name, value in dialogue.prosody.items()],
        "timings": list(dialogue.timings.items()),
        "total": sum(dialogue.timings.values()),
        "energy": energy_path(dialogue),
        "attention": attention_map(dialogue),
        "styled": bool(styled),
    }


def _verdict(slot: str, dialogue: AnsweredDialogue) -> dict[str, str | None]:
    right, said = dialogue.slots.get(slot), dialogue.predicted_slots.get(slot)
    verdict = "unknown" if right is None else "unsaid" if said is None else "right" if said == right else "wrong"
    return {"slot": slot, "right": right, "said": said, "verdict": verdict}


def _prosody(name: str, value: float) -> tuple[str, str]:
    shown = {
        "rate": ("speed", f"× {value:.2f}"),
        "expressiveness": ("expressiveness", f"× {value:.2f}"),
        "pitch_shift": ("pitch", f"{value:+.1f} semitones"),
        "energy": ("loudness", f"{value:+.1f} dB"),
    }
    name, text = shown.get(name, (name.replace("_", " "), f"{value:g}"))
    return name, text.replace("-", "−")


def _metric(value: object, share: bool) -> str:
    if value is None:
        return "–"
    if not is_number(value):
        return str(value)
    if share:
        return f"{100 * value:.1f}%"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) > 1 else f"{value:.3f}"


def _duration(seconds: object) -> str:
    if not is_number(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
