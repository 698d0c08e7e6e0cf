"""Twins: the same words of the same voice, the last turn spoken with one affect and with another."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
from corpus import TRENDS, draw_labels, first_affects, plan_dialogue, read_corpus, spoken_otherwise
from prepare import write_dialogue

from es4r_toolkit.backends.espeak import EspeakSynthesizer
from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.dialogue import Dialogue

SPLIT = "twins"


def speak_twins(folder: Path, corpus: str | Path, level: str, seed: int) -> list[Dialogue]:
    """Speak a dialogue of test voices and sentences twice, ending in the affects of highest and of lowest valence.

    Arguments
    ---------
    folder : Path
        Gets ``twins.jsonl`` and ``wav/twins``.
    corpus, level
        As `read_corpus` has them; of recordings there are no twins, since
        few speakers say one sentence under every emotion.
    seed : int

    Returns
    -------
    list of Dialogue
        Two, or none of recordings.
    """
    config = read_corpus(corpus, level)
    if "pools" in config:
        return []
    start = [seed, zlib.crc32(SPLIT.encode())]
    config["speaker_turns"] = [2, 2]
    slots = draw_labels(config, "test", 1, seed)[0]
    turns = plan_dialogue(config, "test", slots, np.random.default_rng(start))
    valences = {name: row["valence"] for name, row in config["affects"].items()}
    (folder / "wav" / SPLIT).mkdir(parents=True, exist_ok=True)
    espeak, lines = EspeakSynthesizer(), []
    try:
        for place, affect in enumerate((max(valences, key=valences.get), min(valences, key=valences.get))):
            trend = next(trend for trend in TRENDS if turns[0]["emotion"] in first_affects(valences, affect, trend))
            changed = [*turns[:-1], spoken_otherwise(config, turns[-1], affect, np.random.default_rng([*start, place]))]
            told = {**slots, "affect": affect, "trend": trend}
            # The same room and reply wording for both.
            rng = np.random.default_rng([*start, 9])
            lines.append(write_dialogue(folder, config, espeak, SPLIT, place, told, changed, rng)["line"])
    finally:
        espeak.close()
    (folder / "twins.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return read_manifest(folder / "twins.jsonl").dialogues
