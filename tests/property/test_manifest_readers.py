"""Manifests of every kind: what is written comes back, and every entry is good or named."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from bad_sounds import WAV
from hypothesis import given, settings
from hypothesis import strategies as st
from soak import examples

from es4r_toolkit.data.manifest import ManifestReport, read_manifest
from es4r_toolkit.data.records import FieldError, seconds_field
from es4r_toolkit.data.tables import MOST_TURNS, TableOptions
from es4r_toolkit.errors import DialogueError

SOUND = "a.wav"
HEADER = ("dialogue_id", "role", "wav", "text", "turn", "start", "stop", "emotion", "split")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("manifests")
    (folder / SOUND).write_bytes(WAV)
    return folder


def read(folder: Path, name: str, content: bytes, **options: object) -> ManifestReport | None:
    """What a manifest holds; None where it is refused as a whole, by name."""
    (folder / name).write_bytes(content)
    try:
        return read_manifest(folder / name, **options)
    except DialogueError as error:
        require_words(error)
        return None


def require_words(error: DialogueError) -> None:
    assert error.problem
    assert error.mend


def entry(name: str, text: str) -> dict:
    return {"conversation_id": name, "dialogue_history": [{"role": "speaker", "utterance": text, "audio_path": SOUND}]}


said = st.text(min_size=1, max_size=30).filter(str.strip)
# What pandas takes for a line end, and spaces at the ends, which are not what anybody said.
cells = said.map(str.strip).filter(lambda text: not set(text) & {"\r", "\0"})


@settings(max_examples=examples(30), deadline=None)
@given(texts=st.lists(said, min_size=1, max_size=5), ascii_only=st.booleans(), kind=st.sampled_from(["jsonl", "json"]))
def test_what_is_said_comes_back_letter_by_letter(folder, texts, ascii_only, kind):
    entries = [entry(str(place), text) for place, text in enumerate(texts)]
    written = [json.dumps(one, ensure_ascii=ascii_only) for one in entries]
    content = "\n".join(written) if kind == "jsonl" else f"[{','.join(written)}]"
    report = read(folder, f"said.{kind}", content.encode())
    assert [dialogue.history[0].text for dialogue in report.dialogues] == texts
    assert report.rejected == []


@settings(max_examples=examples(30), deadline=None)
@given(texts=st.lists(cells, min_size=1, max_size=5), mark=st.sampled_from(",;\t"), end=st.sampled_from(["\n", "\r\n"]))
def test_what_stands_in_a_table_comes_back_letter_by_letter(folder, texts, mark, end):
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=mark, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([HEADER[:4], *((str(place), "speaker", SOUND, text) for place, text in enumerate(texts))])
    report = read(folder, "said.csv", buffer.getvalue().encode())
    assert [dialogue.history[0].text for dialogue in report.dialogues] == texts
    assert report.rejected == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**350) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
turns = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["speaker", "listener"]),
        "utterance": said | json_values,
        "audio_path": st.just(SOUND) | json_values,
    },
    optional={
        name: st.floats(0, 1) | st.integers(0, 3) | json_values
        for name in ("index", "start", "stop", "emotion", "speaker_id")
    },
)
dialogues = st.fixed_dictionaries(
    {
        "conversation_id": st.sampled_from("ab") | st.integers(0, 2) | json_values,
        "dialogue_history": st.lists(turns | json_values, max_size=3) | json_values,
    },
    optional={name: json_values for name in ("turn_id", "response", "slots", "split", "speaker_emotion")},
)


@settings(max_examples=examples(40), deadline=None)
@given(values=st.lists(dialogues | json_values, min_size=1, max_size=6))
def test_every_entry_is_counted_once_whatever_it_is(folder, values):
    written = [json.dumps(value) for value in values]
    for name, content in {"all.jsonl": "\n".join(written), "all.json": f"[{','.join(written)}]"}.items():
        report = read(folder, name, content.encode("utf-8", "surrogatepass"), split="train")
        found = len(report.dialogues) + len(report.rejected) + report.elsewhere
        assert found == len(values)
        assert all(fault.problem and fault.mend for fault in report.rejected)
        for dialogue in report.dialogues:
            assert any(turn.is_speaker for turn in dialogue.history)
            assert all(turn.audio.is_file() and turn.text.strip() for turn in dialogue.history)


@settings(max_examples=examples(40), deadline=None)
@given(
    header=st.lists(st.sampled_from([*HEADER, "", "note", "text", "wav "]), max_size=9),
    rows=st.lists(
        st.lists(
            st.sampled_from(["", "1", "2", "speaker", "listener", SOUND, "0.1", '"', "a\nb", "nan", "9" * 50]) | said
        ),
        max_size=6,
    ),
    quoted=st.booleans(),
    name=st.sampled_from(["any.csv", "any.tsv"]),
    samples=st.sampled_from(["every", "last"]),
)
def test_no_table_is_misread(folder, header, rows, quoted, name, samples):
    if quoted:
        buffer = io.StringIO()
        csv.writer(buffer, delimiter="\t" if name == "any.tsv" else ",").writerows([header, *rows])
        text = buffer.getvalue()
    else:
        text = "\n".join(",".join(row) for row in [header, *rows])
    report = read(folder, name, text.encode(), table=TableOptions(samples=samples))
    if report is None:
        return
    assert report.dialogues or report.rejected
    for dialogue in report.dialogues:
        # A cell is never taken for one of another column.
        assert all(turn.audio == folder / SOUND for turn in dialogue.history)
        assert all(turn.role in ("speaker", "listener") for turn in dialogue.history)


@settings(max_examples=examples(40), deadline=None)
@given(content=st.binary(max_size=200), name=st.sampled_from(["any.jsonl", "any.json", "any.csv", "any.tsv"]))
def test_bytes_of_any_kind_are_read_or_refused_by_name(folder, content, name):
    report = read(folder, name, content)
    assert report is None or len(report.rejected) > 0


@settings(max_examples=examples(40), deadline=None)
@given(value=st.integers() | st.floats() | st.integers(-(10**500), 10**500) | st.booleans() | st.text(max_size=2))
def test_seconds_are_a_number_that_a_recording_could_have(value):
    try:
        seconds = seconds_field(value, "start")
    except FieldError:
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
        assert not good, value
    else:
        assert seconds == float(value)


def test_a_dialogue_in_a_table_may_be_as_long_as_the_bound_and_no_longer(folder):
    rows = [f"1,{'listener' if place % 2 else 'speaker'},{SOUND},hi" for place in range(MOST_TURNS + 1)]
    head = ",".join(HEADER[:4])
    last = TableOptions(samples="last")
    (dialogue,) = read(folder, "long.csv", "\n".join([head, *rows[:-1]]).encode(), table=last).dialogues
    assert len(dialogue) == MOST_TURNS - 1
    (rejection,) = read(folder, "long.csv", "\n".join([head, *rows]).encode(), table=last).rejected
    assert rejection.problem == f"stands in {MOST_TURNS + 1} rows, over the limit of {MOST_TURNS} turns"


def test_a_column_of_our_name_gives_way_to_the_one_that_is_mapped(folder):
    table = f"dialogue_id,role,wav,text,heard\n1,speaker,{SOUND},what was read,what was heard\n"
    options = TableOptions(columns={"text": "heard"})
    (dialogue,) = read(folder, "mapped.csv", table.encode(), table=options).dialogues
    assert dialogue.history[0].text == "what was heard"


def test_a_message_stays_short_however_long_the_value(folder):
    (rejection,) = read(folder, "long.jsonl", json.dumps(entry("1", "hi") | {"split": ["x"] * 10}).encode()).rejected
    assert rejection.field == "split"
    value = entry("1", "hi")
    value["dialogue_history"][0]["role"] = "bot" * 100_000
    (rejection,) = read(folder, "long.jsonl", json.dumps(value).encode()).rejected
    assert rejection.problem.startswith("is 'botbot")
    assert len(rejection.problem) < 500
