"""Tables: one utterance a row becomes dialogues, and what is wrong with a row costs no other dialogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from es4r_toolkit.data.audio import load_turn
from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.data.tables import TableOptions, table_options
from es4r_toolkit.errors import ConfigError, DialogueError

RATE = 8000
HEADER = "dialogue_id,turn,role,text,wav,start,stop,emotion,speaker_id,split\n"
CALL = [
    "a,0,speaker,It is about the exam.,call.wav,0.0,2.0,,anna,train",
    "a,1,listener,Tell me.,call.wav,2.0,3.0,,ben,train",
    "a,2,speaker,It was on Tuesday.,call.wav,3.0,5.0,sadness,anna,train",
    "a,3,listener,I am sorry.,,,,,ben,train",
]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A recording of ten seconds, each second of its own loudness."""
    steps = np.repeat(np.arange(1, 11) / 20, RATE).astype(np.float32)
    soundfile.write(str(tmp_path / "call.wav"), steps, RATE, subtype="FLOAT")
    return tmp_path


def read(folder: Path, rows: list[str], header: str = HEADER, name: str = "table.csv", **options):
    (folder / name).write_text(header + "\n".join(rows) + "\n", encoding="utf-8")
    return read_manifest(folder / name, **options)


def test_every_listener_turn_becomes_a_dialogue_with_the_turns_before_it(folder):
    report = read(folder, CALL)
    assert not report.rejected
    assert [one.id for one in report.dialogues] == ["a_1", "a_3"]
    first, second = report.dialogues
    assert ([turn.text for turn in first.history], first.response.text) == (["It is about the exam."], "Tell me.")
    assert len(second) == 3
    assert second.response.text == "I am sorry."
    assert second.response.audio is None
    assert [(turn.start, turn.stop) for turn in second.history] == [(0, 2), (2, 3), (3, 5)]
    assert [turn.speaker_id for turn in second.history] == ["anna", "ben", "anna"]
    assert second.history[2].emotion == "sadness"


def test_a_turn_is_its_part_of_the_recording(folder):
    (_, second) = read(folder, CALL).dialogues
    waves = [load_turn(turn, RATE).numpy() for turn in second.history]
    assert [len(wave) for wave in waves] == [2 * RATE, RATE, 2 * RATE]
    assert [round(float(wave[0]) * 20) for wave in waves] == [1, 3, 4]
    assert [round(float(wave[-1]) * 20) for wave in waves] == [2, 3, 5]


def test_only_the_last_sample_where_asked(folder):
    (one,) = read(folder, CALL, table=TableOptions(samples="last")).dialogues
    assert one.id == "a"
    assert len(one) == 3


def test_a_dialogue_that_nobody_answers_is_a_history_alone(folder):
    (one,) = read(folder, CALL[:1]).dialogues
    assert one.response is None
    assert len(one) == 1


def test_rows_may_stand_in_any_order_where_turns_are_numbered(folder):
    assert read(folder, CALL[::-1]).dialogues == read(folder, CALL).dialogues


def test_without_numbers_the_order_of_the_rows_counts(folder):
    rows = [row.replace(",speaker", ";speaker").replace(",listener", ";listener").split(",") for row in CALL]
    header = "dialogue_id,role,text,wav\n"
    plain = ["a," + ",".join([row[1].split(";")[1], *row[2:4]]) for row in rows]
    (_, second) = read(folder, plain, header).dialogues
    assert [turn.text for turn in second.history] == [row[2] for row in rows[:3]]
    assert second.history[0].stop is None


@pytest.mark.parametrize(("mark", "name"), [(";", "table.csv"), ("\t", "table.csv"), ("\t", "table.tsv")])
def test_semicolons_tabs_windows_ends_and_byte_order_marks_are_read(folder, mark, name):
    expected = read(folder, CALL).dialogues
    text = (HEADER + "\n".join(CALL) + "\n").replace(",", mark).replace("\n", "\r\n")
    (folder / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_manifest(folder / name).dialogues == expected


def test_quoted_text_umlauts_and_decimal_commas_survive(folder):
    rows = ['b;0;speaker;"Müde; sehr ""müde""";call.wav;0,5;1,5;;Jörg;', "b;1;listener;Oh.;;;;;;"]
    (one,) = read(folder, rows, HEADER.replace(",", ";")).dialogues
    assert one.history[0].text == 'Müde; sehr "müde"'
    assert (one.history[0].start, one.history[0].stop, one.history[0].speaker_id) == (0.5, 1.5, "Jörg")


def test_columns_and_roles_of_others_are_mapped(folder):
    rows = ["7,caller,Hello.,call.wav", "7,agent,Yes?,"]
    (folder / "map.yaml").write_text(
        "columns: {dialogue_id: call, role: who, text: words, wav: file}\nroles: {caller: speaker, agent: listener}\n"
    )
    (one,) = read(folder, rows, "call,who,words,file\n", table=table_options(folder / "map.yaml")).dialogues
    assert (one.id, one.history[0].role, one.response.text) == ("7", "speaker", "Yes?")


def test_a_split_is_taken_by_name(folder):
    other = [row.replace("a,", "b,", 1).replace("train", "test") for row in CALL]
    report = read(folder, [*CALL, *other], split="test")
    assert [one.id for one in report.dialogues] == ["b_1", "b_3"]
    assert (report.elsewhere, report.rejected) == (2, [])
    assert len(read(folder, [*CALL, *other]).dialogues) == 4


FAULTS = {
    "a turn that stands twice": (["b,0,speaker,x,call.wav,,,,,", "b,0,speaker,y,call.wav,,,,,"], "turn", "line 6 too"),
    "a turn that is no number": (["b,first,speaker,x,call.wav,,,,,"], "turn", "is 'first'"),
    "a time that is no number": (["b,0,speaker,x,call.wav,soon,,,,"], "start", "is 'soon'"),
    "no dialogue": ([",0,speaker,x,call.wav,,,,,"], "dialogue_id", "is empty"),
    "a missing file": (["b,0,speaker,x,none.wav,,,,,"], "dialogue_history[0].audio_path", "does not exist"),
    "no file": (["b,0,speaker,x,,,,,,"], "dialogue_history[0].audio_path", "is missing"),
    "no text": (["b,0,speaker,,call.wav,,,,,"], "dialogue_history[0].utterance", "is missing"),
    "an unknown role": (["b,0,robot,x,call.wav,,,,,"], "dialogue_history[0].role", "is 'robot'"),
    "a stop beyond the end": (["b,0,speaker,x,call.wav,8,12,,,"], "dialogue_history[0].audio_path", "lasts 10.00 s"),
    "a stop before its start": (["b,0,speaker,x,call.wav,3,2,,,"], "dialogue_history[0].audio_path", "no part from 3"),
    "a negative start": (["b,0,speaker,x,call.wav,-1,2,,,"], "dialogue_history[0].start", "is -1"),
    "several splits": (["b,0,speaker,x,call.wav,,,,,train", "b,1,listener,y,,,,,,test"], "split", "test, train"),
}


@pytest.mark.parametrize(("rows", "field", "problem"), FAULTS.values(), ids=FAULTS.keys())
def test_a_faulty_row_costs_its_own_dialogue_and_no_other(folder, rows, field, problem):
    report = read(folder, [*CALL, *rows])
    assert [one.id for one in report.dialogues] == ["a_1", "a_3"]
    (rejected,) = report.rejected
    assert rejected.field == field
    assert problem in rejected.problem
    assert rejected.line >= 6
    assert rejected.item == ("line 6" if field == "dialogue_id" else "b")


def test_a_fault_in_a_later_turn_leaves_the_samples_before_it(folder):
    rows = [*CALL[:2], CALL[2].replace("call.wav", "none.wav"), CALL[3]]
    report = read(folder, rows)
    assert [one.id for one in report.dialogues] == ["a_1"]
    assert [(rejection.item, rejection.line) for rejection in report.rejected] == [("a_3", 4)]


def test_the_line_named_is_that_of_the_row_at_fault(folder):
    rows = [CALL[3].replace("call.wav", "none.wav"), CALL[0], CALL[1].replace("call.wav", "none.wav"), CALL[2]]
    found = [(one.item, one.line, one.field) for one in read(folder, rows).rejected]
    assert found == [("a_1", 4, "response.audio_path"), ("a_3", 4, "dialogue_history[1].audio_path")]


def test_where_words_alone_are_read_a_table_needs_no_recordings(folder):
    rows = ["a,speaker,I failed.", "a,listener,Oh no."]
    (dialogue,) = read(folder, rows, "dialogue_id,role,text\n", need_audio=False).dialogues
    assert [(turn.text, turn.audio) for turn in (*dialogue.history, dialogue.response)] == [
        ("I failed.", None),
        ("Oh no.", None),
    ]
    with pytest.raises(DialogueError, match="has no column wav"):
        read_manifest(folder / "table.csv")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dialogue_id,who,wav\na,speaker,x\n", "has no column role; its columns are dialogue_id, who, wav"),
        (HEADER, "has no rows"),
        ("", "is no table"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(folder, text, problem):
    (folder / "table.csv").write_text(text)
    with pytest.raises(DialogueError, match=problem):
        read_manifest(folder / "table.csv")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ("columns: {words: text}", "'words', which is no column of ours"),
        ("roles: {caller: hero}", "makes 'caller' a 'hero'"),
        ("samples: some", "must be every or last"),
        ("rows: 3", "something other than columns, roles, samples"),
        ("[1, 2", "cannot be read"),
    ],
)
def test_options_that_make_no_sense_are_refused(folder, values, problem):
    (folder / "map.yaml").write_text(values)
    with pytest.raises(ConfigError, match=problem):
        table_options(folder / "map.yaml")


def test_a_long_recording_may_be_cut_though_it_could_not_be_read_whole(folder):
    soundfile.write(str(folder / "long.wav"), np.full(700 * 4000, 0.1), 4000)
    whole, cut = "b,0,speaker,x,long.wav,,,,,", "c,0,speaker,x,long.wav,690,699.5,,,"
    report = read(folder, [whole, cut])
    assert [one.id for one in report.dialogues] == ["c"]
    assert "over the limit of 600 s" in report.rejected[0].problem
    assert len(load_turn(report.dialogues[0].history[0], 4000)) == 38000
