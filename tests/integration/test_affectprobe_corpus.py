"""The AffectProbe corpus: balanced, unseen voices and sentences in the test split, and the same bytes each time."""

from __future__ import annotations

import copy
import doctest
import importlib.util
import itertools
import json
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.errors import ConfigError
from es4r_toolkit.metrics.slots import SlotTable

LEVELS = ("easy", "standard", "hard")
TINY = {"train": 6, "valid": 3, "test": 4}

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'",
)


@pytest.fixture(scope="module")
def recipe(affectprobe):
    return affectprobe("prepare")


@pytest.fixture(scope="module")
def config(corpus):
    return corpus.read_corpus(corpus.CORPUS)


@pytest.fixture(scope="module")
def written(corpus):
    """The YAML file as it stands, before a level is applied."""
    return YAML(typ="safe").load(corpus.CORPUS.read_text())


@pytest.fixture(scope="module")
def built(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("affectprobe") / "data"
    summary = recipe.prepare(folder, seed=7, sizes=TINY, workers=1, progress=False)
    return folder, summary


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "corpus.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def valences(config: dict) -> dict[str, float]:
    return {name: row["valence"] for name, row in config["affects"].items()}


@needs_espeak
def test_the_bytes_do_not_depend_on_the_number_of_workers(recipe, built, tmp_path):
    folder, _ = built
    recipe.prepare(tmp_path / "again", seed=7, sizes=TINY, workers=3, progress=False)
    assert contents(tmp_path / "again") == contents(folder)


@needs_espeak
def test_another_seed_gives_another_corpus_in_the_same_place(recipe, built, tmp_path):
    folder, _ = built
    for seed in (7, 8):
        summary = recipe.prepare(tmp_path / "data", seed=seed, sizes=TINY, workers=2, progress=False)
        assert summary["made"]
    assert json.loads((tmp_path / "data/corpus.json").read_text())["settings"]["seed"] == 8
    first, second = contents(folder), contents(tmp_path / "data")
    assert first["test.jsonl"] != second["test.jsonl"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"], "a building folder was left behind"


@needs_espeak
def test_a_complete_corpus_is_not_made_again(recipe, built):
    folder, summary = built
    before = (folder / "corpus.json").stat().st_mtime_ns
    again = recipe.prepare(folder, seed=7, sizes=TINY, workers=1, progress=False)
    assert summary["made"]
    assert not again["made"]
    assert (folder / "corpus.json").stat().st_mtime_ns == before


@needs_espeak
def test_the_manifests_are_read_without_a_rejection(built):
    folder, summary = built
    for split, size in TINY.items():
        report = read_manifest(folder / f"{split}.jsonl", need_response=True, decode=True)
        assert len(report.dialogues) == size
        assert not report.rejected
        for dialogue in report.dialogues:
            speakers = [turn for turn in dialogue.history if turn.is_speaker]
            assert 2 <= len(speakers) <= 4
            assert dialogue.history[-1].is_speaker
            assert dialogue.history[-1].emotion == dialogue.slots["affect"]
            assert dialogue.history[0].is_speaker
        assert summary["turns"][split] == sum(len(dialogue.history) for dialogue in report.dialogues)


@needs_espeak
def test_the_trend_follows_from_first_and_last_emotion_and_the_first_turn_names_the_topic(built, config):
    folder, _ = built
    order = valences(config)
    for split in TINY:
        for dialogue in read_manifest(folder / f"{split}.jsonl").dialogues:
            change = order[dialogue.history[-1].emotion] - order[dialogue.history[0].emotion]
            assert dialogue.slots["trend"] == {1: "better", 0: "same", -1: "worse"}[int(np.sign(change))]
            nouns = config["topics"][dialogue.slots["topic"]]
            assert any(noun in dialogue.history[0].text for noun in nouns)


@needs_espeak
def test_the_audio_is_mono_16_khz_audible_and_unclipped(built):
    folder, summary = built
    seconds = 0.0
    for path in folder.rglob("*.wav"):
        with wave.open(str(path)) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        seconds += len(samples) / 16000
        assert 0.5 < len(samples) / 16000 < 5.0
        assert 300 < np.abs(samples.astype(int)).max() < 32767
    assert seconds == pytest.approx(sum(summary["seconds_of_audio"].values()), abs=0.2)


@needs_espeak
def test_every_reply_names_exactly_its_own_slots(built):
    folder, _ = built
    table = SlotTable.read(folder / "slots.json")
    for split in TINY:
        for dialogue in read_manifest(folder / f"{split}.jsonl").dialogues:
            assert table.predicted(dialogue.response.text) == dialogue.slots


def test_every_possible_reply_is_short_and_read_back_as_its_own_values(corpus, config):
    table = SlotTable({s: {v: tuple(p) for v, p in values.items()} for s, values in corpus.key_phrases(config).items()})
    clauses = {
        slot: [(value, clause) for value, entries in config["reply"][slot].items() for clause in entries]
        for slot in corpus.SLOTS
    }
    assert all(len(entries) >= 3 for slot in corpus.SLOTS for entries in config["reply"][slot].values())
    for affect, topic, trend in itertools.product(clauses["affect"], clauses["topic"], clauses["trend"]):
        text = " ".join(clause for _, clause in (affect, topic, trend)).replace("[", "").replace("]", "")
        assert 15 <= len(text.split()) <= 25
        assert table.predicted(text) == {"affect": affect[0], "topic": topic[0], "trend": trend[0]}


def test_no_key_phrase_stands_inside_another_value_s(corpus, config):
    phrases = [
        (s, v, p) for s, values in corpus.key_phrases(config).items() for v, entries in values.items() for p in entries
    ]
    for (slot, value, phrase), (other_slot, other, same) in itertools.permutations(phrases, 2):
        assert (slot, value) == (other_slot, other) or phrase not in same


def test_no_sentence_is_said_in_two_splits(corpus, config):
    said = {split: {sentence.lower() for sentence in corpus.all_sentences(config, split)} for split in corpus.SPLITS}
    for split, other in itertools.combinations(said, 2):
        assert not said[split] & said[other]
    assert len(config["sentences"]["train"]["named"]) >= 24


def test_voices_are_of_one_split_each_and_enough(config):
    variants = {split: {voice.partition("+")[2] for voice in voices} for split, voices in config["voices"].items()}
    for split, other in itertools.combinations(variants, 2):
        assert not variants[split] & variants[other]
    assert (len(variants["train"]) >= 8, len(variants["valid"]), len(variants["test"])) == (True, 4, 4)


def test_affect_and_trend_are_evenly_spread_over_what_can_be(corpus, config):
    order = valences(config)
    shares = corpus.label_shares(order)
    np.testing.assert_allclose(shares.sum(axis=1), 1 / len(order), atol=1e-8)
    np.testing.assert_allclose(shares.sum(axis=0), 1 / 3, atol=1e-8)
    for row, last in enumerate(order):
        for column, trend in enumerate(corpus.TRENDS):
            assert (shares[row, column] > 0) == bool(corpus.first_affects(order, last, trend))


def test_the_share_table_has_the_most_entropy_of_its_kind(corpus, config):
    shares = corpus.label_shares(valences(config))
    rows, columns = np.nonzero(shares)
    entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
    for first, second in itertools.combinations(range(len(rows)), 2):
        corners = (rows[first], columns[first]), (rows[second], columns[second])
        others = (rows[first], columns[second]), (rows[second], columns[first])
        if rows[first] == rows[second] or columns[first] == columns[second] or any(shares[o] == 0 for o in others):
            continue
        # Moving mass around a rectangle keeps both margins; none of these moves may raise the entropy.
        for step in (1e-3, -1e-3):
            moved = shares.copy()
            for corner in corners:
                moved[corner] += step
            for corner in others:
                moved[corner] -= step
            assert -(moved[moved > 0] * np.log(moved[moved > 0])).sum() < entropy


@pytest.mark.parametrize("size", [24, 200, 1300])
def test_drawn_labels_keep_the_margins(corpus, config, size):
    labels = corpus.draw_labels(config, "test", size, seed=3)
    for slot, values, slack in (("affect", 6, 1), ("topic", 8, 1), ("trend", 3, 5)):
        counts = Counter(label[slot] for label in labels)
        assert len(counts) == values
        assert all(abs(count - size / values) <= slack for count in counts.values()), (slot, counts)


def test_labels_of_a_split_do_not_depend_on_one_another(corpus, config):
    labels = corpus.draw_labels(config, "train", 2400, seed=3)
    counts = Counter((label["topic"], label["affect"]) for label in labels)
    assert max(abs(counts[pair] - 50) for pair in itertools.product(config["topics"], config["affects"])) < 30


def test_the_oracle_that_hears_the_last_turn_alone_is_far_from_perfect(corpus, config):
    shares = corpus.label_shares(valences(config))
    assert corpus.trend_from_last_affect(config) == pytest.approx(sum(max(row) for row in shares))
    assert 1 / 3 < corpus.trend_from_last_affect(config) < 0.5


def test_the_text_does_not_tell_the_affect(corpus, config):
    """Chi-square of opening and closing sentences against affect and trend, per degree of freedom: about 1."""
    sides = tuple(itertools.product(("affect", "trend"), (0, -1)))
    counts = {side: Counter() for side in sides}
    for index, slots in enumerate(corpus.draw_labels(config, "test", 2000, seed=5)):
        turns = corpus.plan_dialogue(config, "test", {**slots, "topic": "work"}, np.random.default_rng([5, index]))
        for slot, position in sides:
            counts[slot, position][slots[slot], turns[position]["text"]] += 1
    for side in sides:
        values, texts = (sorted({key[part] for key in counts[side]}) for part in (0, 1))
        table = np.array([[counts[side][value, text] for text in texts] for value in values], float)
        expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
        freedom = (len(values) - 1) * (len(texts) - 1)
        assert ((table - expected) ** 2 / expected).sum() / freedom < 1.5, side


def test_a_level_widens_the_regions_about_their_middle_and_says_how_it_is_recorded(corpus, written):
    standard = corpus.read_corpus(corpus.CORPUS)
    for level, row in written["levels"].items():
        config = corpus.read_corpus(corpus.CORPUS, level)
        assert config["recording"]["snr"] == row["recording"]["snr"]
        for name, region in config["affects"].items():
            for feature in corpus.FEATURES:
                low, high = region[feature]
                known = standard["affects"][name][feature]
                least, most = corpus.BOUNDS.get(feature, (-99, 99))
                assert least <= low <= sum(known) / 2 <= high <= most
                if least < low and high < most:
                    assert high - low == pytest.approx(row["spread"] * (known[1] - known[0]))
    with pytest.raises(ConfigError, match="must be one of easy, standard, hard"):
        corpus.read_corpus(corpus.CORPUS, "hardest")


def test_neighbours_overlap_in_every_feature_at_the_standard_level(config):
    for feature in ("rate", "pitch", "pitch_range", "level", "word_gap"):
        regions = sorted((tuple(row[feature]) for row in config["affects"].values()), key=sum)
        apart = [right[0] >= left[1] for left, right in itertools.pairwise(regions)]
        # Pitch falls into a low group and a high one; every affect still has a neighbour that it overlaps.
        assert not any(first and second for first, second in itertools.pairwise([True, *apart, True])), feature


def test_who_knows_the_parameters_tells_affects_apart_but_not_by_one_of_them(corpus):
    known = {level: corpus.affect_from_parameters(corpus.read_corpus(corpus.CORPUS, level)) for level in LEVELS}
    for level in ("standard", "hard"):
        assert known[level]["all"] > 0.99
        assert max(share for name, share in known[level].items() if name != "all") < 0.8
    assert all(known["easy"][name] > known["standard"][name] > known["hard"][name] for name in corpus.FEATURES)


def test_turns_are_drawn_from_the_region_of_their_affect(corpus, config):
    jitter = config["recording"]["rate_jitter"]
    for index, slots in enumerate(corpus.draw_labels(config, "train", 60, seed=1)):
        turns = corpus.plan_dialogue(config, "train", slots, np.random.default_rng(index))
        assert len({turn["voice"] for turn in turns}) == 2
        for turn in turns:
            region = config["neutral"] if turn["role"] == "listener" else config["affects"][turn["emotion"]]
            low, high = region["rate"]
            assert low * jitter[0] - 1 <= turn["rate"] <= high * jitter[1] + 1
            assert region["level"][0] <= turn["level"] <= region["level"][1]
            assert region["pitch_range"][0] <= turn["pitch_range"] <= region["pitch_range"][1]


def corrupted(config: dict, change) -> dict:
    changed = copy.deepcopy(config)
    change(changed)
    return changed


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.pop("topics"), "lacks"),
        (lambda c: c["affects"]["joy"].update(rate=[200, 100]), r"affects\.joy\.rate"),
        (lambda c: c["affects"]["joy"].pop("valence"), r"affects\.joy\.valence"),
        (lambda c: c["voices"]["test"].append("en+f1"), "each voice belongs to one split"),
        (lambda c: c["voices"].update(valid=["en-us+f4"]), "two voices"),
        (lambda c: c["sentences"]["test"]["plain"].append("It took the whole afternoon."), "in train too"),
        (lambda c: c["sentences"]["test"]["plain"].append("It was in my office."), "names"),
        (lambda c: c["sentences"]["test"]["named"].append("No noun here."), "hold {noun} once"),
        (lambda c: c["sentences"]["test"]["plain"].append("You hear how happy I am."), "how happy"),
        (lambda c: c["topics"]["money"].append("the meeting room"), "the meeting"),
        (lambda c: c["reply"]["affect"]["joy"].append("You are [glad]. Or [merry]."), "mark one"),
        (lambda c: c["reply"]["affect"]["joy"].append("I hear [joy] and real anger."), "real anger"),
        (lambda c: c["reply"]["affect"].pop("joy"), r"reply\.affect"),
        (lambda c: c["speaker_turns"].__setitem__(0, 1), "speaker_turns"),
        (lambda c: c["levels"].pop("standard"), "level: got 'standard'; must be one of easy, hard"),
        (lambda c: c["levels"]["standard"].update(spread=0), r"levels\.standard\.spread"),
        (lambda c: c["levels"]["standard"]["recording"].pop("snr"), r"recording\.snr"),
    ],
)
def test_a_faulty_corpus_file_is_refused_with_the_entry_named(corpus, written, tmp_path, change, problem):
    path = tmp_path / "corpus.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(corrupted(written, change), file)
    with pytest.raises(ConfigError, match=problem):
        corpus.read_corpus(path)


@pytest.mark.parametrize(
    "arguments", [{"seed": -1}, {"workers": 0}, {"sizes": {"train": 1}}, {"sizes": {**TINY, "test": 0}}]
)
def test_an_impossible_setting_is_refused_before_anything_is_written(recipe, tmp_path, arguments):
    with pytest.raises(ConfigError):
        recipe.prepare(tmp_path / "data", progress=False, **arguments)
    assert not (tmp_path / "data").exists()


def test_a_folder_of_something_else_is_left_alone(recipe, tmp_path):
    (tmp_path / "train.jsonl").write_text("mine\n")
    with pytest.raises(ConfigError, match=r"no corpus\.json"):
        recipe.prepare(tmp_path, sizes=TINY, progress=False)
    assert (tmp_path / "train.jsonl").read_text() == "mine\n"
    (tmp_path / "corpus.json").write_text("[]")
    with pytest.raises(ConfigError, match="not written by this script"):
        recipe.prepare(tmp_path, sizes=TINY, progress=False)


@needs_espeak
def test_a_failed_build_leaves_nothing_behind(recipe, written, tmp_path, capsys):
    path = tmp_path / "corpus.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(
            corrupted(written, lambda c: c["voices"].update(test=["en-us+nobody", "en-us+none"])), file
        )
    command = ["--data_folder", str(tmp_path / "data"), "--corpus", str(path)]
    assert recipe.main([*command, "--train", "2", "--valid", "1", "--test", "1"]) == 1
    assert "error: espeak voice" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["corpus.yaml"]


def test_the_examples_in_the_docstrings_hold(corpus):
    result = doctest.testmod(corpus)
    assert result.attempted > 0
    assert result.failed == 0
