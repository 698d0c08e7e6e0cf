"""Making a listening test: replies that belong together, sound that loses and tells nothing, a page that is blind."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter

import numpy as np
import pytest
import soundfile

from es4r_toolkit.data.replies import Reply, read_replies
from es4r_toolkit.dialogue import Turn
from es4r_toolkit.errors import AudioError, ConfigError, DialogueError
from es4r_toolkit.report.listening import Pair, make_test, pair_replies
from es4r_toolkit.report.listening_sound import one_rate, sound_address

SYSTEMS = ("Sonnenblume", "Quarzsand")
TEXT_ONLY = ("topic", "emotion", "specificity", "action", "empathy")


def tone(path, seconds: float = 0.2, sample_rate: int = 16000, loudness: float = 0.3, subtype: str = "PCM_16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = loudness * np.sin(np.arange(int(seconds * sample_rate)) * 0.1)
    soundfile.write(str(path), samples, sample_rate, subtype=subtype)
    return path


def answer(folder, name: str, spoken: bool = True, place: str | None = None) -> None:
    """What es4r respond writes for one dialogue."""
    inner = folder / (place or name)
    inner.mkdir(parents=True)
    (inner / "response.json").write_text(json.dumps({"id": name, "text": f"Reply to {name}."}))
    if spoken:
        tone(inner / "response.wav")


def records(path, *values):
    path.write_text("".join((value if isinstance(value, str) else json.dumps(value)) + "\n" for value in values))
    return path


def pair(name: str, first_audio=None, second_audio=None, history=()) -> Pair:
    return Pair(Reply(name, f"First to {name}.", first_audio), Reply(name, f"Second to {name}.", second_audio), history)


def samples_of(address: str) -> tuple[np.ndarray, int, bytes]:
    head, body = address.split(",", 1)
    assert head == "data:audio/flac;base64"
    content = base64.b64decode(body)
    return *soundfile.read(io.BytesIO(content), dtype="int16"), content


# -- replies ----------------------------------------------------------------------------------------------------------


def test_speech_is_found_by_id_whatever_its_folder_is_called(tmp_path):
    answer(tmp_path, "a/b", place="a_b")
    answer(tmp_path, "c", spoken=False)
    lines = [{"id": name, "response": f"To {name}.", "reference": "R."} for name in ("a/b", "c")]
    replies, faults = read_replies(records(tmp_path / "predictions.jsonl", *lines))
    assert faults == []
    assert replies == [Reply("a/b", "To a/b.", tmp_path / "a_b" / "response.wav"), Reply("c", "To c.", None)]


def test_speech_may_be_named_in_the_record(tmp_path):
    path = records(tmp_path / "replies.jsonl", {"id": "a", "response": "Yes.", "audio_path": "wav/a.wav"})
    assert read_replies(path) == ([Reply("a", "Yes.", tmp_path / "wav" / "a.wav")], [])


def test_a_folder_of_answers_needs_no_predictions(tmp_path):
    answer(tmp_path, "b")
    answer(tmp_path, "a", spoken=False)
    replies, faults = read_replies(tmp_path)
    assert faults == []
    assert replies == [
        Reply("a", "Reply to a.", None),
        Reply("b", "Reply to b.", tmp_path / "b" / "response.wav"),
    ]


def test_bad_replies_are_named_and_left_out(tmp_path):
    path = records(
        tmp_path / "replies.jsonl",
        {"id": "a", "response": "Yes."},
        {"response": "No id."},
        {"id": "b"},
        {"id": "a", "response": "Again."},
        "{",
    )
    replies, faults = read_replies(path)
    assert replies == [Reply("a", "Yes.", None)]
    assert [fault.item.rsplit(", ", 1)[1] for fault in faults] == ["line 2", "line 3", "line 5", "line 4"]
    assert [fault.problem.split(" (")[0] for fault in faults] == [
        "id is missing",
        "response is missing",
        "record is not JSON",
        f"id 'a' stands in {path}, line 1 too",
    ]


def test_answers_that_cannot_be_read_are_named(tmp_path):
    answer(tmp_path, "a")
    answer(tmp_path, "a", place="twin")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "response.json").write_text("[]")
    replies, faults = read_replies(tmp_path)
    assert [reply.id for reply in replies] == ["a"]
    assert sorted(fault.problem.split(" (")[0].split("'a'")[0] for fault in faults) == [
        "id ",
        "record is a list, not an object",
    ]


def test_a_folder_without_answers_is_refused(tmp_path):
    with pytest.raises(DialogueError, match="holds no"):
        read_replies(tmp_path)


# -- pairs ------------------------------------------------------------------------------------------------------------


def test_replies_are_paired_by_dialogue_and_the_others_named():
    first, second = ([Reply(name, name, None) for name in names] for names in ("abcd", "dcbe"))
    turn = (Turn("speaker", "Hello."),)
    pairs, remarks = pair_replies(first, second, {"b": turn, "c": turn})
    assert [(one.first.id, one.second.id, one.history) for one in pairs] == [("b", "b", turn), ("c", "c", turn)]
    assert remarks == {
        "answered by the first system alone, left out": ["a"],
        "answered by the second system alone, left out": ["e"],
        "without a history among the dialogues, left out": ["d"],
    }
    assert len(pair_replies(first, second)[0]) == 3


# -- sound ------------------------------------------------------------------------------------------------------------


def test_sound_is_the_recording_bit_by_bit(tmp_path):
    path = tone(tmp_path / "a.wav")
    samples, sample_rate, _ = samples_of(sound_address(path)[0])
    assert sample_rate == 16000
    assert np.array_equal(samples, soundfile.read(str(path), dtype="int16")[0])


def test_flac_takes_little_more_than_half_the_room_of_wav(tmp_path):
    rng = np.random.default_rng(0)
    # A voice-like sound: a few harmonics, loud and soft, with breath.
    time = np.arange(48000) / 24000
    voice = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 12)) * (0.1 + 0.1 * np.sin(6 * time))
    soundfile.write(str(tmp_path / "v.wav"), voice + 0.002 * rng.standard_normal(len(time)), 24000, subtype="PCM_16")
    size = len(samples_of(sound_address(tmp_path / "v.wav")[0])[2])
    assert size < 0.6 * (tmp_path / "v.wav").stat().st_size


def test_sound_beyond_full_scale_is_turned_down_as_a_whole(tmp_path):
    path = tone(tmp_path / "loud.wav", loudness=2.0, subtype="FLOAT")
    address, peak = sound_address(path)
    assert peak == pytest.approx(2.0, rel=1e-3)
    assert abs(samples_of(address)[0].astype(int)).max() >= 32766


def test_a_part_of_a_recording_is_cut_out(tmp_path):
    path = tone(tmp_path / "call.wav", seconds=1.0)
    samples, _, _ = samples_of(sound_address(path, start=0.25, stop=0.5)[0])
    assert np.array_equal(samples, soundfile.read(str(path), dtype="int16")[0][4000:8000])


def test_no_sample_rate_tells_one_system_from_the_other(tmp_path):
    first, second = tone(tmp_path / "1.wav", sample_rate=16000), tone(tmp_path / "2.wav", sample_rate=24000)
    test = make_test([pair("a", first, second)], SYSTEMS)
    sounds = [samples_of(address) for address in test.content["sounds"]]
    assert [sample_rate for _, sample_rate, _ in sounds] == [24000, 24000]
    assert one_rate([]) is None


def test_sound_keeps_no_name_or_comment_of_its_file(tmp_path):
    path = tmp_path / "Sonnenblume.wav"
    with soundfile.SoundFile(str(path), "w", 16000, 1, "PCM_16") as file:
        file.title, file.artist, file.comment = "Sonnenblume", "Sonnenblume", "Sonnenblume"
        file.write(np.zeros(1600))
    assert b"Sonnenblume" in path.read_bytes()
    assert b"onnenblume" not in samples_of(sound_address(path)[0])[2]


# -- tests ------------------------------------------------------------------------------------------------------------


def test_a_pair_without_speech_in_one_system_is_asked_on_text_alone(tmp_path):
    path = tone(tmp_path / "a.wav")
    test = make_test([pair("a", path, path), pair("b", path, None), pair("c")], SYSTEMS)
    aspects = {item.dialogue: item.aspects for item in test.key.items.values()}
    assert aspects == {"a": ("DMOS-E", "DMOS-C", "DMOS-Q", *TEXT_ONLY), "b": TEXT_ONLY, "c": TEXT_ONLY}
    assert test.remarks["without speech in one system or both, asked on text alone"] == ["b", "c"]
    sounds = {item["name"]: [item[side]["sound"] for side in "xy"] for item in test.content["items"]}
    silent = [name for name, item in test.key.items.items() if item.dialogue in "bc"]
    assert [sounds[name] for name in silent] == [[None, None]] * 2


def test_speech_that_cannot_be_decoded_is_named_and_not_asked_about(tmp_path):
    good, bad = tone(tmp_path / "a.wav"), tmp_path / "bad.wav"
    bad.write_bytes(good.read_bytes()[:-100])
    test = make_test([pair("a", good, bad), pair("b", good, tmp_path / "none.wav")], SYSTEMS)
    assert [item.aspects for item in test.key.items.values()] == [TEXT_ONLY] * 2
    assert {(type(fault), fault.item) for fault in test.faults} == {
        (AudioError, str(bad)),
        (AudioError, str(tmp_path / "none.wav")),
    }


def test_speech_alone_or_text_alone_can_be_asked(tmp_path):
    path = tone(tmp_path / "a.wav")
    pairs = [pair("a", path, path), pair("b", path, None)]
    speech, text = make_test(pairs, SYSTEMS, "speech"), make_test(pairs, SYSTEMS, "text")
    assert [(item.dialogue, item.aspects) for item in speech.key.items.values()] == [
        ("a", ("DMOS-E", "DMOS-C", "DMOS-Q"))
    ]
    assert speech.remarks == {"without speech in one system or both, left out": ["b"]}
    assert {item.aspects for item in text.key.items.values()} == {TEXT_ONLY}
    assert text.content["sounds"] == []
    with pytest.raises(DialogueError, match="nothing to ask"):
        make_test([pair("b")], SYSTEMS, "speech")
    with pytest.raises(ConfigError, match="questions"):
        make_test(pairs, SYSTEMS, "music")


def test_the_same_seed_makes_the_same_test_and_another_another():
    pairs = [pair(f"d{number}") for number in range(20)]
    one, same, other = (make_test(pairs, SYSTEMS, seed=seed) for seed in (1, 1, 2))
    assert one.key == same.key
    assert one.content == same.content
    assert one.key.test != other.key.test
    assert [item.dialogue for item in one.key.items.values()] != [item.dialogue for item in other.key.items.values()]


def test_sides_and_dialogues_are_drawn_by_chance():
    pairs = [pair(f"d{number}") for number in range(400)]
    test = make_test(pairs, SYSTEMS, number=200)
    assert len({item.dialogue for item in test.key.items.values()}) == 200
    # Of 200 fair throws, 100 expected; 81 to 119 hold 99 % of cases.
    assert 81 <= Counter(item.first for item in test.key.items.values())["x"] <= 119


def test_the_key_says_which_side_is_whose():
    test = make_test([pair(f"d{number}") for number in range(10)], SYSTEMS)
    for item in test.content["items"]:
        known = test.key.items[item["name"]]
        other = {"x": "y", "y": "x"}[known.first]
        assert item[known.first]["text"] == f"First to {known.dialogue}."
        assert item[other]["text"] == f"Second to {known.dialogue}."


def test_a_turn_that_two_histories_share_is_held_once(tmp_path):
    turn = Turn("speaker", "Hello.", tone(tmp_path / "a.wav"))
    test = make_test([pair("a", history=(turn,)), pair("b", history=(turn,))], SYSTEMS)
    assert [item["history"][0]["sound"] for item in test.content["items"]] == [0, 0]
    assert len(test.content["sounds"]) == 1
    assert make_test([pair("a", history=(turn,))], SYSTEMS, history_audio=False).content["sounds"] == []


def test_the_page_tells_nothing_of_who_is_who_and_holds_nothing_foreign(tmp_path):
    first, second = tone(tmp_path / "Sonnenblume" / "a.wav"), tone(tmp_path / "Quarzsand" / "a.wav", seconds=0.3)
    turn = Turn("speaker", '</script><img src="x" onerror="alert(1)">', tone(tmp_path / "Sonnenblume" / "h.wav"))
    test = make_test([pair("dlg-7", first, second, (turn,))], SYSTEMS)
    test.write(tmp_path / "page.html", tmp_path / "key.json")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for name in (*SYSTEMS, "dlg-7.wav", str(tmp_path), "listen_key"):
        assert name.lower() not in page.lower()
    assert set(test.content) == {"test", "columns", "aspects", "items", "sounds"}
    [item] = test.content["items"]
    assert set(item) == {"name", "aspects", "history", "x", "y"}
    assert set(item["x"]) == set(item["y"]) == {"text", "sound"}
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert not re.findall(r"""(?:src|href)=["'][^"']|https?://""", page)
    assert "Sonnenblume" in (tmp_path / "key.json").read_text()


def test_two_systems_that_say_the_same_are_remarked():
    same = Pair(Reply("a", "Yes.", None), Reply("a", "Yes.", None))
    remarks = make_test([same, pair("b")], SYSTEMS).remarks
    assert ["a"] in [names for remark, names in remarks.items() if remark.startswith("with the same words")]
