"""Manifests: every kind of bad dialogue is named with its line, field and mend, and the good ones go on."""

from __future__ import annotations

import copy
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from es4r_toolkit.data.manifest import ManifestReport, read_manifest
from es4r_toolkit.data.records import Rejection
from es4r_toolkit.dialogue import Turn
from es4r_toolkit.errors import DialogueError

REAL = Path(__file__).parents[3] / "shared" / "data" / "avamerg_demo" / "dialogues.jsonl"


@pytest.fixture
def folder(tmp_path) -> Path:
    soundfile.write(str(tmp_path / "a.wav"), np.zeros(8000), 16000)
    soundfile.write(str(tmp_path / "b.wav"), np.zeros(8000), 16000)
    return tmp_path


def good(conversation: object = "1", **more: object) -> dict:
    history = [
        {"index": 0, "role": "speaker", "utterance": "I failed my exam.", "audio_path": "a.wav"},
        {"index": 1, "role": "listener", "utterance": "Oh no.", "audio_path": "b.wav"},
        {"index": 2, "role": "speaker", "utterance": "It hurts.", "audio_path": "a.wav", "emotion": "sad"},
    ]
    response = {"index": 3, "role": "listener", "utterance": "I am with you.", "audio_path": "b.wav"}
    return {"conversation_id": conversation, "turn_id": 1, "dialogue_history": history, "response": response, **more}


def write(folder: Path, *entries: object, name: str = "dialogues.jsonl") -> Path:
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def only_rejection(report: ManifestReport) -> Rejection:
    assert len(report.rejected) == 1, report.rejected
    rejection = report.rejected[0]
    assert rejection.mend
    return rejection


def test_a_good_dialogue_comes_out_whole(folder):
    report = read_manifest(write(folder, good(slots={"affect": "sad"}, extra=[1])), need_response=True, decode=True)
    assert report.rejected == []
    dialogue = report.dialogues[0]
    assert (dialogue.id, len(dialogue), dialogue.slots) == ("1", 3, {"affect": "sad"})
    assert dialogue.history[2] == Turn("speaker", "It hurts.", folder / "a.wav", "sad")
    assert dialogue.response == Turn("listener", "I am with you.", folder / "b.wav")


# Each: the path to the value, what it becomes (DELETE takes it out), the field and words that the rejection names.
DELETE = ...
FAULTS = [
    (["conversation_id"], DELETE, "conversation_id", "is missing"),
    (["conversation_id"], " ", "conversation_id", "is empty"),
    (["conversation_id"], 1.5, "conversation_id", "is a number"),
    (["turn_id"], [1], "turn_id", "is a list"),
    (["dialogue_history"], DELETE, "dialogue_history", "is missing"),
    (["dialogue_history"], [], "dialogue_history", "is empty"),
    (["dialogue_history"], {"0": 1}, "dialogue_history", "is an object, not a list"),
    (["dialogue_history", 1], "hello", "dialogue_history[1]", "is a string, not an object"),
    (["dialogue_history", 1, "role"], "bot", "dialogue_history[1].role", "is 'bot'"),
    (["dialogue_history", 1, "role"], DELETE, "dialogue_history[1].role", "is missing"),
    (["dialogue_history", 0, "utterance"], DELETE, "dialogue_history[0].utterance", "is missing"),
    (["dialogue_history", 0, "utterance"], "  ", "dialogue_history[0].utterance", "is empty"),
    (["dialogue_history", 0, "utterance"], 7, "dialogue_history[0].utterance", "is a whole number"),
    (["dialogue_history", 0, "utterance"], "half \ud83d", "dialogue_history[0].utterance", "half a character"),
    (["dialogue_history", 2, "audio_path"], DELETE, "dialogue_history[2].audio_path", "is missing"),
    (["dialogue_history", 2, "audio_path"], None, "dialogue_history[2].audio_path", "is missing"),
    (["dialogue_history", 2, "audio_path"], "none.wav", "dialogue_history[2].audio_path", "'none.wav' does not exist"),
    (["dialogue_history", 2, "audio_path"], "\x00.wav", "dialogue_history[2].audio_path", "does not exist"),
    (["dialogue_history", 2, "audio_path"], ".", "dialogue_history[2].audio_path", "is not a file"),
    (["dialogue_history", 2, "emotion"], 3, "dialogue_history[2].emotion", "is a whole number"),
    (["dialogue_history", 2, "index"], 1, "dialogue_history[2].index", "is 1 after 1"),
    (["dialogue_history", 2, "index"], "2", "dialogue_history[2].index", "is a string"),
    (["dialogue_history", 2, "index"], float("nan"), "dialogue_history[2].index", "is nan"),
    (["speaker_emotion"], ["sad"], "speaker_emotion", "is a list"),
    (["response"], "I am with you.", "response", "is a string, not an object"),
    (["response", "role"], "speaker", "response.role", "is 'speaker'"),
    (["response", "utterance"], "", "response.utterance", "is empty"),
    (["response", "audio_path"], "none.wav", "response.audio_path", "does not exist"),
    (["response", "index"], 2, "response.index", "is 2 after 2"),
    (["slots"], ["sad"], "slots", "is a list, not an object"),
    (["slots"], {"affect": 3}, "slots.affect", "is a whole number"),
    (["extra"], {"deep": [1, float("inf")]}, "extra.deep[1]", "is inf"),
]


@pytest.mark.parametrize(("where", "value", "field", "words"), FAULTS, ids=lambda part: str(part)[:40])
def test_each_fault_is_named_and_the_others_go_on(folder, where, value, field, words):
    bad = copy.deepcopy(good("bad"))
    place = bad
    for key in where[:-1]:
        place = place[key]
    if value is DELETE:
        del place[where[-1]]
    else:
        place[where[-1]] = value
    path = write(folder, good("1"), bad, good("3"))
    report = read_manifest(path)
    assert [dialogue.id for dialogue in report.dialogues] == ["1", "3"]
    rejection = only_rejection(report)
    assert (rejection.line, rejection.field) == (2, field)
    assert words in rejection.problem
    assert rejection.item == ("line 2" if where[0] in ("conversation_id", "turn_id") else "bad")
    line = str(rejection.error(path))
    assert line.startswith(f"{path}, line 2")
    assert field in line
    assert line.endswith(rejection.mend)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"conversation_id": "1", ', "is not JSON"),
        ("[1, 2]", "is a list, not an object"),
        ("null", "is null"),
        ('"text"', "is a string"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ("9" * 5000, "is not JSON"),
    ],
    ids=lambda part: part[:20],
)
def test_a_broken_line_is_rejected_and_the_others_go_on(folder, line, words):
    report = read_manifest(write(folder, good("1"), line, good("3")))
    assert [dialogue.id for dialogue in report.dialogues] == ["1", "3"]
    rejection = only_rejection(report)
    assert (rejection.item, rejection.line, rejection.field) == ("line 2", 2, "record")
    assert words in rejection.problem


def test_a_dialogue_nobody_needs_an_answer_to_is_rejected(folder):
    entry = good()
    for turn in entry["dialogue_history"]:
        turn["role"] = "listener"
    assert "has no speaker turn" in only_rejection(read_manifest(write(folder, entry))).problem


def test_an_empty_utterance_says_that_text_is_needed(folder):
    entry = good()
    entry["dialogue_history"][0]["utterance"] = ""
    assert "reads the text of every turn" in only_rejection(read_manifest(write(folder, entry))).mend


def test_a_response_is_needed_only_where_asked_for(folder):
    entry = good()
    del entry["response"]
    path = write(folder, entry, {**good("2"), "response": None})
    assert [dialogue.response for dialogue in read_manifest(path).dialogues] == [None, None]
    report = read_manifest(path, need_response=True)
    assert [rejection.field for rejection in report.rejected] == ["response", "response"]


def test_a_response_needs_no_audio(folder):
    entry = good()
    del entry["response"]["audio_path"]
    assert read_manifest(write(folder, entry)).dialogues[0].response.audio is None


def test_where_words_alone_are_read_turns_need_no_audio_and_what_is_given_is_held_to_its_rules(folder):
    written, missing = good("1"), good("2")
    for turn in written["dialogue_history"]:
        del turn["audio_path"]
    missing["dialogue_history"][1]["audio_path"] = "none.wav"
    path = write(folder, written, missing, good("3"))
    report = read_manifest(path, need_audio=False)
    assert [turn.audio for turn in report.dialogues[0].history] == [None, None, None]
    assert report.dialogues[1].history[0].audio == folder / "a.wav"
    assert "'none.wav' does not exist" in only_rejection(report).problem
    assert read_manifest(path, need_audio=False, check_audio=False).rejected == []
    assert [rejection.item for rejection in read_manifest(path).rejected] == ["1", "2"]


def test_the_emotion_of_a_dialogue_is_that_of_its_newest_speaker_turn_without_one(folder):
    unlabelled = good("2", speaker_emotion="afraid")
    del unlabelled["dialogue_history"][2]["emotion"]
    path = write(folder, good("1", speaker_emotion="afraid"), unlabelled, good("3", speaker_emotion=None))
    emotions = [[turn.emotion for turn in dialogue.history] for dialogue in read_manifest(path).dialogues]
    assert emotions == [[None, None, "sad"], [None, None, "afraid"], [None, None, "sad"]]


def test_turn_ids_join_the_id_only_where_a_conversation_is_repeated(folder):
    entries = [good("1"), good("1", turn_id=2), good(2), good("3", turn_id="x")]
    assert [d.id for d in read_manifest(write(folder, *entries)).dialogues] == ["1_1", "1_2", "2", "3"]


def test_mending_one_dialogue_renames_no_other(folder):
    report = read_manifest(write(folder, good("1"), good("1", turn_id=2, dialogue_history=[])))
    assert [dialogue.id for dialogue in report.dialogues] == ["1_1"]
    assert only_rejection(report).item == "1_2"


@pytest.mark.parametrize("twin", [good("1"), good(1)])
def test_a_dialogue_that_stands_twice_is_an_error(folder, twin):
    rejection = only_rejection(read_manifest(write(folder, good("1"), good("2"), twin)))
    assert (rejection.line, rejection.field) == (3, "conversation_id")
    assert "stands in line 1 too" in rejection.problem


def test_an_id_made_from_a_turn_may_not_meet_another_id(folder):
    entries = [good("1_2"), good("1"), good("1", turn_id=2)]
    assert only_rejection(read_manifest(write(folder, *entries))).line == 3


def test_windows_line_ends_a_byte_order_mark_and_blank_lines_are_tolerated(folder):
    path = write(folder, good("1"), "", good("2"), "  ")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    report = read_manifest(path)
    assert [dialogue.id for dialogue in report.dialogues] == ["1", "2"]
    assert report.rejected == []


def test_a_line_separator_inside_a_string_splits_no_line(folder):
    entry = good()
    entry["dialogue_history"][0]["utterance"] = "first\u2028second"
    report = read_manifest(write(folder, json.dumps(entry, ensure_ascii=False)))
    assert report.dialogues[0].history[0].text == "first\u2028second"


@pytest.mark.parametrize("content", [good("7"), [good("7")]])
def test_a_json_file_holds_a_list_or_one_dialogue(folder, content):
    path = folder / "one.json"
    path.write_text(json.dumps(content, indent=2))
    assert [dialogue.id for dialogue in read_manifest(path).dialogues] == ["7"]


def test_a_bad_entry_of_a_json_list_is_named_by_its_place(folder):
    path = folder / "some.json"
    path.write_text(json.dumps([good("7"), {"dialogue_history": []}]))
    rejection = only_rejection(read_manifest(path))
    assert str(rejection.error(path)).startswith(f"{path}, entry 2: conversation_id is missing")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b" \n\n", "is empty"),
        ("a.json", b"", "is empty"),
        ("a.json", b"[]", "is empty"),
        ("a.json", b'{"conversation_id":\n oops}', "is not JSON (Expecting value at line 2, column 2)"),
        ("a.jsonl", b'{}\n{"a": "\xff"}\n', "is not UTF-8 (byte 0xff in line 2)"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        ("a.txt", b"{}", "has the extension '.txt'"),
        ("a", b"{}", "has the extension ''"),
    ],
)
def test_a_fault_of_the_whole_file_is_raised(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DialogueError) as caught:
        read_manifest(tmp_path / name)
    assert words in caught.value.problem
    assert str(tmp_path / name) in str(caught.value)
    assert caught.value.mend


@pytest.mark.parametrize(("name", "words"), [("none.jsonl", "does not exist"), ("", "is not a file")])
def test_a_manifest_that_is_no_file_is_raised(tmp_path, name, words):
    with pytest.raises(DialogueError, match=words):
        read_manifest(tmp_path / name)


def test_unfit_recordings_are_found_by_the_header_or_by_decoding(folder):
    (folder / "text.wav").write_text("no audio at all")
    (folder / "empty.wav").touch()
    soundfile.write(str(folder / "nan.wav"), np.full(100, np.nan, dtype="float32"), 16000, subtype="FLOAT")
    whole = (folder / "a.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[:4000])
    entries = []
    for name in ("text", "empty", "cut", "nan"):
        entry = good(name)
        entry["dialogue_history"][0]["audio_path"] = f"{name}.wav"
        entries.append(entry)
    path = write(folder, *entries, good("fine"))
    assert read_manifest(path, check_audio=False).rejected == []
    by_header = read_manifest(path)
    assert [rejection.item for rejection in by_header.rejected] == ["text", "empty", "cut"]
    decoded = read_manifest(path, decode=True)
    assert [rejection.item for rejection in decoded.rejected] == ["text", "empty", "cut", "nan"]
    assert [dialogue.id for dialogue in decoded.dialogues] == ["fine"]
    problems = [rejection.problem for rejection in decoded.rejected]
    for words, problem in zip(["not audio", "0 bytes", "declares 16000 bytes", "100 NaN"], problems):
        assert words in problem


def test_a_recording_is_read_once_however_often_it_stands(folder, monkeypatch):
    from es4r_toolkit.data import audio

    seen = []
    probe = audio.probe
    monkeypatch.setattr(audio, "probe", lambda path, *given: seen.append(path.name) or probe(path, *given))
    read_manifest(write(folder, good("1"), good("2"), good("3")))
    assert sorted(seen) == ["a.wav", "b.wav"]


def test_backslashes_in_a_path_are_explained(folder):
    entry = good()
    entry["dialogue_history"][0]["audio_path"] = "wav\\a.wav"
    assert "write / in place of" in only_rejection(read_manifest(write(folder, entry))).mend


def test_like_faults_are_of_one_kind():
    kinds = {
        Rejection("a", 1, "dialogue_history[0].audio_path", "'x.wav' lasts 700.5 s", "").kind,
        Rejection("b", 2, "dialogue_history[12].audio_path", '"it\'s.wav" lasts 900 s', "").kind,
    }
    assert kinds == {"dialogue_history[].audio_path … lasts … s"}


@pytest.mark.parametrize(("on_disk", "in_file"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_an_umlaut_may_be_written_as_one_character_or_two(folder, on_disk, in_file):
    recording = folder / unicodedata.normalize(on_disk, "Käthe Müßig.wav")
    soundfile.write(recording, np.zeros(8000), 16000)
    entry = good()
    entry["dialogue_history"][0]["audio_path"] = unicodedata.normalize(in_file, recording.name)
    for options in ({}, {"decode": True}, {"workers": 2}):
        (dialogue,) = read_manifest(write(folder, entry), **options).dialogues
        assert dialogue.history[0].audio == recording


def test_progress_sees_every_record(folder):
    seen = []

    def watch(records, unit, total):
        assert (unit, total) == ("dialogue", 3)
        for record in records:
            seen.append(record.line)
            yield record

    read_manifest(write(folder, good("1"), "broken", good("3")), progress=watch)
    assert seen == [1, 2, 3]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "utterance", "audio_path", "index"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(
        st.fixed_dictionaries(
            {}, optional={key: json_values for key in ("conversation_id", "turn_id", "dialogue_history", "response")}
        ),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_stands_in_a_manifest_every_entry_is_accounted_for(tmp_path_factory, values):
    path = write(tmp_path_factory.getbasetemp(), *values, name="any.jsonl")
    report = read_manifest(path)
    assert len(report.dialogues) + len(report.rejected) == len(values)
    assert [rejection.line for rejection in report.rejected] == sorted({r.line for r in report.rejected})


@pytest.mark.skipif(not REAL.is_file(), reason="the AvaMERG demo dialogues do not lie beside the project")
def test_the_real_dialogues_are_good():
    report = read_manifest(REAL, need_response=True, decode=True)
    assert report.rejected == []
    assert [(dialogue.id, len(dialogue)) for dialogue in report.dialogues] == [("20001", 3), ("20002", 5), ("20004", 5)]
    assert all(turn.audio.is_file() for dialogue in report.dialogues for turn in dialogue.history)
