"""AffectProbe from recordings: tables of clips as corpora publish them, and dialogues composed of them."""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from ruamel.yaml import YAML

from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.errors import ConfigError
from es4r_toolkit.metrics.slots import SlotTable

EMODB = Path(__file__).resolve().parents[3] / "shared" / "data" / "emodb_part"
HPARAMS = Path(__file__).parents[2] / "recipes" / "AffectProbe" / "hparams" / "emodb.yaml"
EMOTIONS = ("anger", "joy", "sadness", "neutral")
SIZES = {"train": 8, "valid": 4, "test": 6}

needs_emodb = pytest.mark.skipif(not EMODB.is_dir(), reason=f"{EMODB} is absent: the shared recordings are not here")


def tone(path: Path, pitch: float = 200.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(2 * np.pi * pitch * np.arange(8000) / 16000), 16000)
    return path


@pytest.fixture(scope="module")
def clips(affectprobe):
    return affectprobe("clips")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A corpus YAML on a table of tones: four actors, three sentences, and not every sentence under every emotion."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    cells = itertools.product(("ann", "bob", "cat", "dan"), ("a02", "a04", "a05"), EMOTIONS)
    for number, (speaker, sentence, emotion) in enumerate(cells):
        if (speaker, sentence, emotion) in {("ann", "a02", "sadness"), ("cat", "a04", "joy"), ("dan", "a05", "anger")}:
            continue
        wav = tone(folder / f"{speaker}_{sentence}_{emotion}.wav", 150 + 7 * number)
        rows.append({"wav": wav.name, "who": speaker, "sentence_id": sentence, "text": f"Say {sentence}."})
        rows[-1]["emotion"] = emotion
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    config = YAML(typ="safe").load(HPARAMS.read_text())
    config |= {"clips": "clips.csv", "columns": {"speaker_id": "who"}, "folds": [["ann", "bob"], ["cat", "dan"]]}
    kept = ("wednesday", "confession", "paper")
    config["topics"] = {topic: config["topics"][topic] for topic in kept}
    config["reply"]["topic"] = {topic: config["reply"]["topic"][topic] for topic in kept}
    path = folder / "corpus.yaml"
    YAML(typ="safe").dump(config, path)
    return path


# -- tables of clips ---------------------------------------------------------------------------------------------------

LAYOUTS = {
    "emodb": (
        ["wav/03a01Fa.wav", "wav/16b10Wb.wav"],
        ["wav/03a01Xa.wav"],
        [("03", "a01", "joy"), ("16", "b10", "anger")],
    ),
    "ravdess": (
        ["Actor_12/03-01-06-01-02-01-12.wav", "Actor_01/03-01-02-01-01-02-01.wav"],
        ["Actor_12/03-02-06-01-02-01-12.wav", "Actor_12/notes.wav"],
        [("01", "01", "calm"), ("12", "02", "fear")],
    ),
    "crema-d": (
        ["AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1002_IEO_SAD_HI.wav"],
        ["AudioWAV/1001_DFA_ODD_XX.wav"],
        [("1001", "DFA", "anger"), ("1002", "IEO", "sadness")],
    ),
    "esd": (
        ["0011/Neutral/0011_000001.wav", "0011/Angry/0011_000351.wav", "0012/Surprise/test/0012_001402.wav"],
        ["0011/Angry/0011_000999.wav"],
        [("0011", "001", "neutral"), ("0011", "001", "anger"), ("0012", "002", "surprise")],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_corpus_is_read_as_its_owners_publish_it(clips, tmp_path, capsys, name):
    good, bad, expected = LAYOUTS[name]
    for wav in (*good, *bad):
        tone(tmp_path / "corpus" / wav)
    if name == "esd":
        (tmp_path / "corpus/0011/0011.txt").write_text(
            "\ufeff0011_000001\tThe nine the eggs.\tNeutral\n0011_000351\tThe nine the eggs.\tAngry\n\nodd\n"
        )
        (tmp_path / "corpus/0012/0012.txt").write_text("0012_001402\tI keep.\tSurprise\n")
    table = tmp_path / "clips.csv"
    assert clips.main([name, str(tmp_path / "corpus"), "--output", str(table)]) == 0
    told = capsys.readouterr()
    assert all(Path(wav).name in told.err for wav in bad)
    assert f"{len(good)} clips in {table}, {len(bad)} files left out" in told.out
    read, problems = clips.read_clips(table)
    assert not problems
    assert sorted((clip.speaker, clip.sentence, clip.emotion) for clip in read) == sorted(expected)
    assert all(clip.text and clip.wav.is_file() for clip in read)


def test_a_folder_without_clips_of_a_corpus_is_refused(clips, tmp_path, capsys):
    assert clips.main(["emodb", str(tmp_path), "--output", str(tmp_path / "t.csv")]) == 1
    assert "holds no .wav" in capsys.readouterr().err
    tone(tmp_path / "else.wav")
    assert clips.main(["emodb", str(tmp_path), "--output", str(tmp_path / "t.csv")]) == 1
    assert "holds no clip of emodb" in capsys.readouterr().err


def test_bad_rows_are_named_and_the_others_kept(clips, tmp_path):
    tone(tmp_path / "a.wav")
    table = tmp_path / "t.csv"
    table.write_text("wav,speaker_id,sentence_id,text,emotion\na.wav,1,s,Hi.,joy\nb.wav,1,s,Hi.,joy\na.wav,1,s,,joy\n")
    read, problems = clips.read_clips(table)
    assert len(read) == 1
    assert problems == [f"{table}, line 3: b.wav does not exist", f"{table}, line 4: text empty"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot be read"), ("wav,text\na,b\n", "lacks the columns"), ("", "cannot be read")],
)
def test_a_table_that_cannot_be_used_is_refused(clips, tmp_path, content, problem):
    table = tmp_path / "t.csv"
    if content is not None:
        table.write_text(content)
    with pytest.raises(ConfigError, match=problem):
        clips.read_clips(table)


# -- dialogues ---------------------------------------------------------------------------------------------------------


def test_a_later_sentence_is_as_likely_under_every_emotion(corpus, written):
    config = corpus.read_corpus(written)
    counts = Counter()
    for index, slots in enumerate(corpus.draw_labels(config, "train", 6000, seed=2)):
        turns = corpus.plan_dialogue(config, "train", slots, np.random.default_rng([2, index]))
        for turn in turns[2::2]:
            counts[turn["emotion"], turn["text"]] += 1
    for emotion in EMOTIONS:
        shares = np.array([counts[emotion, f"Say {sentence}."] for sentence in ("a02", "a04", "a05")], float)
        assert shares.sum() > 2000
        assert np.abs(shares / shares.sum() - 1 / 3).max() < 0.04, (emotion, shares)


def test_a_dialogue_keeps_its_speaker_and_another_listens(corpus, written):
    config = corpus.read_corpus(written, fold=1)
    for split, speakers in (("train", {"ann", "bob"}), ("test", {"cat", "dan"})):
        for index, slots in enumerate(corpus.draw_labels(config, split, 60, seed=1)):
            turns = corpus.plan_dialogue(config, split, slots, np.random.default_rng(index))
            (speaker,), (listener,) = ({t["voice"] for t in turns if t["role"] == r} for r in ("speaker", "listener"))
            assert {speaker, listener} == speakers
            assert all(turn["emotion"] == "neutral" for turn in turns[1::2])
            assert turns[-1]["emotion"] == slots["affect"]
            assert turns[0]["text"] == f"Say {config['topics'][slots['topic']][0]}."


def test_composed_dialogues_are_read_without_a_rejection_and_the_same_each_time(affectprobe, written, tmp_path):
    prepare = affectprobe("prepare").prepare
    for name, workers in (("one", 1), ("three", 3)):
        summary = prepare(tmp_path / name, written, sizes=SIZES, workers=workers, progress=False)
        assert summary["speakers"]["test"] == ["ann", "bob"]
    table = SlotTable.read(tmp_path / "one" / "slots.json")
    for split, size in SIZES.items():
        report = read_manifest(tmp_path / "one" / f"{split}.jsonl", need_response=True, decode=True)
        assert (len(report.dialogues), report.rejected) == (size, [])
        for dialogue in report.dialogues:
            assert table.predicted(dialogue.response.text) == dialogue.slots
    files = [
        sorted(p for p in (tmp_path / name).rglob("*") if p.suffix in (".wav", ".jsonl")) for name in ("one", "three")
    ]
    assert len(files[0]) == len(files[1]) > 20
    assert all(first.read_bytes() == second.read_bytes() for first, second in zip(*files))
    assert not prepare(tmp_path / "one", written, sizes=SIZES, progress=False)["made"]
    assert prepare(tmp_path / "one", written, fold=1, sizes=SIZES, progress=False)["made"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"folds": [["ann", "bob"], ["eve", "dan"]]}, r"name \['eve'\]"),
        ({"folds": [["ann"], ["cat", "dan"]]}, "two speakers"),
        ({"clips": "none.csv"}, "cannot be read"),
        ({"affects": {"anger": {"valence": -1}, "fear": {"valence": -2}}}, "under each of"),
        ({"affects": {"anger": {}, "joy": {"valence": 1}}}, r"affects\.anger\.valence"),
        ({"listener": None}, "listener"),
    ],
)
def test_a_faulty_file_is_refused_with_the_entry_named(corpus, written, change, problem):
    config = {**YAML(typ="safe").load(written.read_text()), **change}
    config = {key: value for key, value in config.items() if value is not None}
    path = written.with_name("changed.yaml")
    YAML(typ="safe").dump(config, path)
    with pytest.raises(ConfigError, match=problem):
        corpus.read_corpus(path)


def test_a_fold_that_is_not_there_is_refused(corpus, written):
    with pytest.raises(ConfigError, match="fold: got 2; must be from 0 to 1"):
        corpus.read_corpus(written, fold=2)


@needs_emodb
@pytest.mark.parametrize("fold", [0, 1, 2])
def test_a_later_sentence_tells_nothing_though_dialogues_open_with_few(corpus, fold, monkeypatch):
    """The weights are fitted to what dialogues do open with: sentences of topics that all splits share."""
    monkeypatch.chdir(HPARAMS.parents[3])
    config = corpus.read_corpus(HPARAMS, fold=fold)
    opening = {sentence for sentences in config["topics"].values() for sentence in sentences}
    for pool in config["pools"].values():
        assert set(np.array(pool.sentences)[pool.opens]) == opening <= set(pool.sentences)
        later = pool._later(pool.weights)
        np.testing.assert_allclose(later, later.mean(axis=0, keepdims=True).repeat(len(later), axis=0), atol=1e-4)


@needs_emodb
@pytest.mark.parametrize("fold", [0, 1, 2])
def test_words_of_recorded_dialogues_do_not_tell_affect_or_trend(corpus, fold, monkeypatch):
    """Naive Bayes on which sentences are said, learned in training and asked in testing."""
    monkeypatch.chdir(HPARAMS.parents[3])
    config = corpus.read_corpus(HPARAMS, fold=fold)
    said, wanted = {}, {}
    for split in ("train", "test"):
        labels = corpus.draw_labels(config, split, 3000, seed=4)
        plans = [corpus.plan_dialogue(config, split, s, np.random.default_rng([4, i])) for i, s in enumerate(labels)]
        said[split] = [{f"{turn['role']} {turn['text']}" for turn in turns} for turns in plans]
        wanted[split] = labels
    vocabulary = sorted(set().union(*said["train"], *said["test"]))
    seen = {s: np.array([[word in words for word in vocabulary] for words in said[s]], float) for s in said}
    for slot, number in (("affect", 4), ("trend", 3)):
        values = sorted({label[slot] for label in wanted["train"]})
        truth = {s: np.array([values.index(label[slot]) for label in wanted[s]]) for s in wanted}
        rates = np.array([(seen["train"][truth["train"] == v].sum(axis=0) + 1) / 1000 for v in range(number)]).clip(
            max=0.99
        )
        scores = seen["test"] @ np.log(rates).T + (1 - seen["test"]) @ np.log(1 - rates).T
        assert (scores.argmax(axis=1) == truth["test"]).mean() < 1 / number + 0.05


@needs_emodb
def test_the_shared_recordings_make_dialogues(affectprobe, tmp_path, monkeypatch):
    monkeypatch.chdir(HPARAMS.parents[3])
    summary = affectprobe("prepare").prepare(tmp_path, HPARAMS, sizes=SIZES, progress=False)
    assert summary["clips_left_out"] == 0
    assert summary["speakers"] == {
        "train": ["11", "12", "14", "15"],
        "valid": ["11", "12", "14", "15"],
        "test": ["08", "10"],
    }
    first = json.loads((tmp_path / "test.jsonl").read_text().splitlines()[0])
    assert soundfile.info(tmp_path / first["dialogue_history"][0]["audio_path"]).samplerate == 16000
