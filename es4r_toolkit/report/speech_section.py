"""An evaluation's page on speech: how replies sound, whether as the strategy asked, and the worst to be heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from es4r_toolkit.metrics.hearing import HeardReply
from es4r_toolkit.metrics.speech import BY_STRATEGY, FIGURES
from es4r_toolkit.metrics.speech_examples import worst_spoken
from es4r_toolkit.report.pictures import Picture
from es4r_toolkit.report.sound import Clip, player
from es4r_toolkit.report.speech_plots import figure_boxes, slopes_picture
from es4r_toolkit.report.tables import SYSTEMS, Row, Table, cell, comparison_table

MOST_SPOKEN = 12
PICTURED = ("wer", "mos", *BY_STRATEGY)
FIELDS = {"rate": "rate", "pitch_shift": "pitch", "expressiveness": "expressiveness", "energy": "energy"}
NAMES = {name: figure.title for name, figure in FIGURES.items()}
NAMES |= {f"{field}_correlation": f"{title} as asked" for field, title in FIELDS.items()}
DIGITS = {name: figure.digits for name, figure in FIGURES.items()}


@dataclass(frozen=True)
class SpeechSection:
    """What the page shows of speech.

    Attributes
    ----------
    tables : list of Table
    pictures : list of (str, Picture)
        With captions.
    replies : list of dict
        Those to be heard: ``id``, and for each system what was said, what was heard and a player.
    lead : str
        Which they are.
    """

    tables: list[Table]
    pictures: list[tuple[str, Picture]]
    replies: list[dict[str, Any]]
    lead: str


def speech_section(
    metrics: Mapping[str, Any],
    spoken: Sequence[Sequence[HeardReply]],
    recordings: Sequence[Mapping[str, Path]],
    notes: list[str],
) -> SpeechSection:
    """Gather it.

    Arguments
    ---------
    metrics : mapping
        ``speech``; where there is another system, ``other_speech`` and ``speech_comparison``.
    spoken : sequence of sequence of HeardReply
        What was heard of each system: of one, or of two.
    recordings : sequence of mapping
        For each system, where its reply to a dialogue was spoken.
    notes : list of str
        What a reader should know; what cannot be played is added.
    """
    heard = dict(zip(SYSTEMS, spoken))
    measured = {name: metrics[key] for name, key in zip(heard, ("speech", "other_speech"))}
    tables = [_figures(measured), _agreement(measured), _by_strategy(measured)]
    if "speech_comparison" in metrics:
        remark = (
            "Fewer word errors and a higher opinion are better; a difference of other figures is no merit. “As asked” "
            "is the rank correlation of what the strategy asked with what was measured."
        )
        compared = comparison_table(
            "Speech against the other system", metrics["speech_comparison"], NAMES, DIGITS, remark
        )
        tables.insert(1, compared)
    ranked, order = worst_spoken(spoken)
    replies = [
        {
            "id": together[0].id,
            "systems": [
                _reply(name, reply, player(places.get(reply.id), notes))
                for name, reply, places in zip(heard, together, recordings)
            ],
        }
        for together in ranked[:MOST_SPOKEN]
    ]
    lead = f"{len(replies)} of {len(ranked)} dialogues, the worst first: by {order}."
    return SpeechSection([table for table in tables if table.rows], _pictures(measured, heard), replies, lead)


def _figures(measured: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for name, figure in FIGURES.items():
        if any(name in one for one in measured.values()):
            listener = " and ".join(dict.fromkeys(str(one.get("recognizer")) for one in measured.values()))
            cells = [cell(one.get(name), one["interval"].get(name), figure.digits) for one in measured.values()]
            rows.append(Row(figure.title, cells, figure.unit.format(recognizer=listener)))
    counts = "; ".join(f"{name}: {one['heard']} heard, {one['rejected']} left out" for name, one in measured.items())
    remark = f"{counts}. Below each figure its 95 % interval of a bootstrap over replies."
    return Table("How the replies sound", ["figure", *measured], rows, remark)


def _agreement(measured: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for field, title in FIELDS.items():
        for system, one in measured.items():
            if (found := one["agreement"].get(field)) is not None:
                figures = [cell(found[name], found[f"{name}_interval"], 2) for name in ("correlation", "slope")]
                below = f"{found['measured']}, {system}" if len(measured) > 1 else found["measured"]
                rows.append(Row(title, [*figures, (str(found["replies"]), "")], below))
    remark = (
        "What was asked, and below it what was measured for it. Correlation: of ranks (Spearman). Slope: 1 where the "
        "voice does just what is asked, 0 where it does nothing."
    )
    return Table("As the strategy asked", ["asked", "correlation", "slope", "replies"], rows, remark)


def _by_strategy(measured: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for strategy in sorted({strategy for one in measured.values() for strategy in one["by_strategy"]}):
        for system, one in measured.items():
            if (means := one["by_strategy"].get(strategy)) is not None:
                cells = [cell(means.get(name), digits=FIGURES[name].digits) for name in BY_STRATEGY]
                rows.append(Row(strategy, [(str(means["replies"]), ""), *cells], system if len(measured) > 1 else ""))
    heads = [f"{FIGURES[name].title} ({FIGURES[name].unit})" for name in BY_STRATEGY]
    return Table("By strategy", ["strategy", "replies", *heads], rows)


def _pictures(
    measured: Mapping[str, Mapping[str, Any]], heard: Mapping[str, Sequence[HeardReply]]
) -> list[tuple[str, Picture]]:
    shown = [name for name in PICTURED if any(name in one for one in measured.values())]
    pictures = [(_caption(FIGURES[name].title), figure_boxes(FIGURES[name], heard)) for name in shown]
    agreements = {name: one["agreement"] for name, one in measured.items()}
    if any(agreements.values()):
        pictures.append(("Slope of measured on asked", slopes_picture(agreements, FIELDS)))
    return pictures


def _caption(title: str) -> str:
    return title[0].upper() + title[1:]


def _reply(system: str, reply: HeardReply, clip: Clip | None) -> dict[str, Any]:
    facts = [] if reply.manner is None else [reply.manner.strategy]
    if reply.errors is not None:
        facts.append(f"{FIGURES['wer'].title} {reply.errors}/{reply.words}")
    for name in PICTURED[1:]:
        if (value := FIGURES[name].of(reply)) is not None:
            facts.append(f"{FIGURES[name].title} {cell(value, digits=FIGURES[name].digits)[0]} {FIGURES[name].unit}")
    return {"system": system, "text": reply.text, "heard": reply.heard, "facts": facts, "clip": clip}
