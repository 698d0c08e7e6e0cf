"""Pre-training of AffectProbe's backbones: made once, from the training split alone."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from safetensors.torch import load_file

from es4r_toolkit.lobes import MelDownsampler

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'",
)


@needs_espeak
def test_pretraining_makes_the_backbones_once(affectprobe, corpus, tmp_path):
    recipe, data = affectprobe("pretrain"), tmp_path / "data"
    sizes = {"train": 6, "valid": 3, "test": 4}
    affectprobe("prepare").prepare(data, seed=7, sizes=sizes, workers=1, progress=False)
    settings = {
        "data_folder": str(data),
        "corpus": str(corpus.CORPUS),
        "folder": str(tmp_path / "backbones"),
        "system": "Answer.",
        "encoder": {"d_model": 16, "layers": 1, "heads": 2, "n_mels": 80, "positions": 500},
        "downsampler": {"input_size": 80},
        "llm": {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 16},
        "vocab_size": 700,
        "llm_steps": 4,
        "llm_rounds": 1,
        "seed": 3,
    }
    recipe.pretrain(**settings, speech_steps=12)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "backbones").rglob("*") if path.is_file()}
    assert {"encoder", "llm", "downsampler.safetensors", "backbones.json"} <= {path.name for path in made} | {
        path.parent.name for path in made
    }
    weights = load_file(tmp_path / "backbones" / "downsampler.safetensors")
    MelDownsampler(80).load_state_dict({name.split("downsampler.")[1]: weight for name, weight in weights.items()})
    recipe.pretrain(**settings, speech_steps=12)
    assert made == {path: path.stat().st_mtime_ns for path in made}
    recipe.pretrain(**settings, speech_steps=13)
    assert all(path.stat().st_mtime_ns > made[path] for path in made)


def test_halves_of_a_turn_are_told_by_what_they_share(affectprobe):
    torch.manual_seed(0)
    find = affectprobe("pretrain").ManneredHalves(4, temperature=0.1)
    turns = torch.randn(6, 1, 4).repeat(1, 5, 1)
    alike = turns.repeat_interleave(2, dim=0)
    mixed = torch.stack([turns, turns.roll(1, 0)], dim=1).flatten(0, 1)
    assert find(alike, torch.ones(12)) < 0.5 < 1.8 < find(mixed, torch.ones(12))


def test_the_language_model_goes_on_until_it_answers_what_it_is_told(affectprobe, monkeypatch, tmp_path):
    recipe = affectprobe("pretrain")
    scores = iter([{"affect": 1.0, "trend": 0.4}, {"affect": 1.0, "trend": 0.96}, {"affect": 0.0, "trend": 0.0}])
    seeds = []

    class Nothing:
        tokenizer = None

        def save(self, source):
            seeds.append("saved")

    monkeypatch.setattr(recipe, "CausalLM", lambda *_, **__: Nothing())
    monkeypatch.setattr(recipe, "PromptRenderer", lambda *_: None)
    monkeypatch.setattr(recipe, "_answers", lambda *_: next(scores))
    monkeypatch.setattr(recipe, "teach", lambda _model, _render, examples, steps, seed: seeds.append(seed) or 0.5)
    loss, knows = recipe.pretrain_llm(tmp_path, list(range(300)), None, "Answer.", 10, rounds=4, seed=7)
    assert (loss, knows) == (0.5, {"affect": 1.0, "trend": 0.96})
    assert seeds == [7, 8, "saved"]


@needs_espeak
def test_twins_say_the_same_words_with_another_affect_at_the_end(affectprobe, corpus, tmp_path):
    one, other = affectprobe("twins").speak_twins(tmp_path, corpus.CORPUS, "easy", seed=3)
    assert [turn.text for turn in one.history] == [turn.text for turn in other.history]
    assert [turn.emotion for turn in one.history[:-1]] == [turn.emotion for turn in other.history[:-1]]
    assert (one.slots["affect"], other.slots["affect"]) == ("joy", "sadness")
    assert one.slots["topic"] == other.slots["topic"]
    assert (one.history[-1].emotion, other.history[-1].emotion) == ("joy", "sadness")
    assert one.history[-1].audio.read_bytes() != other.history[-1].audio.read_bytes()
    valences = {name: row["valence"] for name, row in corpus.read_corpus(corpus.CORPUS)["affects"].items()}
    for twin in (one, other):
        first, last = (valences[twin.history[place].emotion] for place in (0, -1))
        assert twin.slots["trend"] == ("same", "better", "worse")[(last > first) - (last < first)]


def test_recordings_have_no_twins(affectprobe, tmp_path, monkeypatch):
    twins = affectprobe("twins")
    monkeypatch.setattr(twins, "read_corpus", lambda *_: {"pools": {}})
    assert twins.speak_twins(tmp_path, "some.yaml", "easy", seed=3) == []
