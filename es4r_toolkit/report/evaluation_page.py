"""write_evaluation: scores of one system or of two side by side, and what they said, worst first, as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from es4r_toolkit.metrics.examples import Example
from es4r_toolkit.metrics.hearing import HeardReply
from es4r_toolkit.report.pages import render_template, write_page
from es4r_toolkit.report.sound import player
from es4r_toolkit.report.speech_section import speech_section
from es4r_toolkit.report.tables import SYSTEMS, Row, Table, cell, comparison_table

MOST_EXAMPLES = 30
NAMES = {f"bleu{order}": f"BLEU-{order}" for order in range(1, 5)}
NAMES |= {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "meteor": "METEOR", "bertscore": "BERTScore"}
NAMES |= {"distinct1": "distinct-1", "distinct2": "distinct-2"}
SCORES = tuple(NAMES)


def write_evaluation(
    path: str | Path,
    title: str,
    metrics: Mapping[str, Any],
    examples: Sequence[Example],
    recordings: Sequence[Mapping[str, Path]],
    notes: Sequence[str] = (),
    spoken: Sequence[Sequence[HeardReply]] = (),
) -> Path:
    """Write the page.

    Arguments
    ---------
    path : str or Path
        The file to write; its folder is made where it is missing.
    title : str
        What was evaluated.
    metrics : mapping
        As `es4r_toolkit.metrics.evaluation.evaluate` gives them; of speech, ``speech``, and where there is another
        system ``other_speech`` and ``speech_comparison``.
    examples : sequence of Example
        What was said, the worst first; the page shows the first ``MOST_EXAMPLES``.
    recordings : sequence of mapping
        For each system, where its reply to a dialogue was spoken, by the dialogue's id.
    notes : sequence of str
        What a reader should know.
    spoken : sequence of sequence of HeardReply
        What was heard of one system, or of two; empty where speech was not measured.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    notes = list(notes)
    shown = [_example(example, recordings, notes) for example in examples[:MOST_EXAMPLES]]
    compared = bool(examples) and len(examples[0].said) > 1
    worst = "Where it is behind most" if compared else "Worst first"
    by = "how far it is behind the other" if compared else "what each has right"
    page = render_template(
        "evaluation.html",
        title=title,
        notes=notes,
        tables=_tables(metrics),
        published=[_published(table) for table in metrics.get("published", [])],
        examples=shown,
        examples_title=worst,
        speech=speech_section(metrics, spoken, recordings, notes) if spoken else None,
        examples_lead=f"{len(shown)} of {len(examples)} dialogues by {by}: slots where there are any, then ROUGE-L.",
    )
    return write_page(path, page)


def _tables(metrics: Mapping[str, Any]) -> list[Table]:
    tables = [_scores(metrics)] if "scored" in metrics else []
    if "slot_accuracy" in metrics:
        tables.append(_slots(metrics))
    if "comparison" in metrics:
        tables.append(comparison_table("Against the other system", metrics["comparison"], NAMES))
    if "cohesion_ratio" in metrics:
        intervals = metrics["cohesion_interval"]
        rows = [Row(kind, [cell(ratio, intervals.get(kind))]) for kind, ratio in metrics["cohesion_ratio"].items()]
        tables.append(Table("Dialogue cohesion", ["representation", "ratio"], rows))
    return tables


def _scores(metrics: Mapping[str, Any]) -> Table:
    intervals = metrics.get("interval", {})
    names = [name for name in SCORES if name in metrics]
    rows = [Row("this system", [cell(metrics[name], intervals.get(name)) for name in names])]
    counts = ", ".join(f"{metrics[name]} {name.replace('_', ' ')}" for name in ("scored", "rejected", "empty_replies"))
    remark = f"{counts}. Below each score its 95 % interval of a bootstrap over dialogues."
    return Table("Against the references", ["", *(NAMES[name] for name in names)], rows, remark)


def _slots(metrics: Mapping[str, Any]) -> Table:
    chances, intervals = metrics["slot_chance"], metrics["slot_interval"]
    rows = [
        Row(slot, [cell(accuracy, intervals.get(slot)), cell(chances[slot])])
        for slot, accuracy in metrics["slot_accuracy"].items()
    ]
    return Table("Slots", ["slot", "accuracy", "chance"], rows)


def _published(table: Mapping[str, Any]) -> dict[str, Any]:
    columns = [name for name in SCORES if any(row.get(name) is not None for row in table["rows"])]
    rows = [
        {**row, "cells": ["" if row.get(name) is None else f"{row[name]:.4f}" for name in columns]}
        for row in table["rows"]
    ]
    return {**table, "columns": [NAMES[name] for name in columns], "rows": rows}


def _example(example: Example, recordings: Sequence[Mapping[str, Path]], notes: list[str]) -> dict[str, Any]:
    replies = []
    for system, said, spoken in zip(SYSTEMS, example.said, [*recordings, {}, {}]):
        replies.append({"system": system, **vars(said), "clip": player(spoken.get(example.id), notes)})
    return {"id": example.id, "reference": example.reference, "replies": replies}
