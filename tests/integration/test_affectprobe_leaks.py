"""Neither the words of a dialogue nor its loudness give affect or trend away."""

from __future__ import annotations

import importlib.util
from collections import Counter

import numpy as np
import pytest
import soundfile

from es4r_toolkit.data.manifest import read_manifest

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'",
)


def test_words_do_not_tell_affect_or_trend_to_naive_bayes(corpus):
    """Every word of a dialogue and its number of turns, learned on half of the dialogues and asked on the others."""
    config = corpus.read_corpus(corpus.CORPUS)
    labels = corpus.draw_labels(config, "test", 4000, seed=11)
    plans = [corpus.plan_dialogue(config, "test", s, np.random.default_rng([11, i])) for i, s in enumerate(labels)]
    words = [{str(len(turns))}.union(*(turn["text"].lower().split() for turn in turns)) for turns in plans]
    vocabulary = sorted(set().union(*words))
    seen = np.array([[word in said for word in vocabulary] for said in words], float)
    for slot, number in (("affect", 6), ("trend", 3)):
        values = sorted({label[slot] for label in labels})
        wanted = np.array([values.index(label[slot]) for label in labels])
        learned = [seen[:2000][wanted[:2000] == value] for value in range(number)]
        rates = np.array([(part.sum(axis=0) + 1) / (len(part) + 2) for part in learned])
        scores = seen[2000:] @ np.log(rates).T + (1 - seen[2000:]) @ np.log(1 - rates).T
        assert (scores.argmax(axis=1) == wanted[2000:]).mean() < 1 / number + 0.05


@needs_espeak
def test_the_loudness_of_a_dialogue_does_not_tell_affect_or_trend(affectprobe, tmp_path):
    affectprobe("prepare").prepare(
        tmp_path, seed=5, sizes={"train": 400, "valid": 1, "test": 1}, workers=2, progress=False
    )
    dialogues = read_manifest(tmp_path / "train.jsonl", check_audio=False).dialogues
    loudness = []
    for dialogue in dialogues:
        heard = np.concatenate([soundfile.read(turn.audio)[0] for turn in dialogue.history])
        loudness.append(10 * np.log10(np.mean(heard**2)))
    loudness = np.array(loudness)
    assert 10 < np.ptp(loudness) < 14, "the gain is drawn from 12 dB"
    for slot, number in (("affect", 6), ("trend", 3)):
        wanted = np.array([dialogue.slots[slot] for dialogue in dialogues])
        # The commonest value among the twenty dialogues of the nearest loudness, oneself left out.
        hits = 0
        for place, level in enumerate(loudness):
            near = np.argsort(np.abs(loudness - level))[1:21]
            hits += Counter(wanted[near]).most_common(1)[0][0] == wanted[place]
        assert hits / len(dialogues) < 1 / number + 0.05


def test_a_dialogue_is_as_loud_as_its_gain_however_its_turns_are_spoken(affectprobe):
    recording = {"loudness": -30, "gain": [3, 3], "snr": [90, 90], "noise_colour": [0, 0], "lead": [0, 0]}
    recording["sample_rate"] = 16000
    generator = np.random.default_rng(0)
    for levels in ((0, 0), (8, -2), (-9, -9)):
        spoken = [10 ** (level / 20) * generator.standard_normal(16000) * 0.1 for level in levels]
        turns, scaled = affectprobe("prepare").record(spoken, recording, generator)
        heard = np.concatenate(turns) / 32767
        assert not scaled
        assert 10 * np.log10(np.mean(heard**2)) == pytest.approx(-27, abs=0.05)
        powers = [10 * np.log10(np.mean((turn / 32767) ** 2)) for turn in turns]
        assert powers[0] - powers[1] == pytest.approx(levels[0] - levels[1], abs=0.3)
