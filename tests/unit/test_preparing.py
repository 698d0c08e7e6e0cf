"""What preparers share: who answers whom, what a faulty utterance costs, when the work is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from es4r_toolkit.data.preparing import SPLITS, Preparation, Sampling, Utterance, draw, prepare_alone
from es4r_toolkit.data.published import find, in_parallel, text_of
from es4r_toolkit.data.records import FieldError
from es4r_toolkit.errors import ConfigError

BROKEN = FieldError("2.wav", "does not exist", "put it there")


def said(persons: str, faulty: str = "", wordless: str = "") -> list[Utterance]:
    """One turn a letter; turns are named by their place."""
    return [
        Utterance(
            name=str(place),
            person=person,
            text="" if str(place) in wordless else f"I am turn {place}.",
            audio=Path(f"{place}.wav"),
            fault=BROKEN if str(place) in faulty + wordless else None,
        )
        for place, person in enumerate(persons)
    ]


def replies(persons: str, **options: object) -> list[int]:
    return Sampling(**options).answers(said(persons))


def roles(sample: dict) -> str:
    return "".join(turn["role"][0] for turn in sample["dialogue_history"])


@pytest.fixture
def work(tmp_path) -> Preparation:
    return Preparation("Toy", tmp_path / "manifests", {"seed": 1})


def test_a_turn_is_a_reply_when_another_person_had_the_one_before():
    assert replies("ABBABC") == [1, 3, 4, 5]
    assert replies("ABBABC", samples="last") == [5]
    assert replies("AAA") == []


def test_where_the_second_is_the_listener_only_who_opens_is_answered():
    assert replies("ABBABC", listener="second") == [1, 4]


def test_the_replier_is_the_listener_of_the_sample_and_everybody_else_a_speaker(work):
    work.add("train", "one", said("ABCA"), Sampling())
    assert [roles(sample) for sample in work.samples["train"]] == ["s", "ss", "lss"]
    assert [sample["response"]["role"] for sample in work.samples["train"]] == ["listener"] * 3


def test_roles_stay_where_the_second_is_the_listener(work):
    work.add("train", "one", said("ABABAB"), Sampling("second"))
    assert [roles(sample) for sample in work.samples["train"]] == ["s", "sls", "slsls"]


def test_a_history_keeps_its_newest_turns(work):
    work.add("train", "one", said("ABABA"), Sampling(max_turns=2))
    newest = [[turn["index"] for turn in sample["dialogue_history"]] for sample in work.samples["train"]]
    assert newest == [[0], [0, 1], [1, 2], [2, 3]]


def test_a_faulty_turn_costs_the_samples_that_hold_it_and_may_be_a_reply_without_sound(work):
    work.add("train", "one", said("ABABA", faulty="2"), Sampling())
    assert [sample["turn_id"] for sample in work.samples["train"]] == ["1", "2"]
    assert "audio_path" not in work.samples["train"][1]["response"]
    place = {"place": "one, 2", "field": "2.wav", "problem": "does not exist", "mend": "put it there", "samples": 2}
    assert work.rejects == [place]


def test_a_turn_without_words_is_no_reply_either(work):
    work.add("train", "one", said("ABA", wordless="1"), Sampling())
    assert work.samples["train"] == []
    assert work.rejects[0]["samples"] == 2


def test_a_turn_that_has_left_the_history_costs_nothing(work):
    work.add("train", "one", said("ABABA", faulty="0"), Sampling(max_turns=2))
    assert [sample["turn_id"] for sample in work.samples["train"]] == ["3", "4"]


def test_a_conversation_of_one_is_named(work):
    work.add("train", "alone", said("AA"), Sampling())
    assert [(one["place"], one["problem"]) for one in work.rejects] == [("alone", "hold nobody who answers anybody")]


def test_the_work_is_done_only_with_the_same_settings_and_all_manifests(work, capsys):
    for split in ("train", "valid", "test"):
        work.add(split, split, said("AB"), Sampling())
    assert not work.done
    work.write()
    assert "Toy: {'train': 1, 'valid': 1, 'test': 1} samples, 0 entries left out; manifests" in capsys.readouterr().out
    assert Preparation("Toy", work.target, {"seed": 1}).done
    assert not Preparation("Toy", work.target, {"seed": 2}).done
    (work.target / "valid.jsonl").unlink()
    assert not Preparation("Toy", work.target, {"seed": 1}).done


def test_a_split_without_samples_is_an_error_that_leaves_the_reasons(work):
    work.add("train", "one", said("AB"), Sampling())
    work.add("valid", "two", said("AA"), Sampling())
    with pytest.raises(ConfigError, match=r"made \{'train': 1, 'valid': 0, 'test': 0\} samples, and left 1 entries"):
        work.write()
    assert json.loads((work.target / "rejects.jsonl").read_text())["place"] == "two"
    assert not work.done


@pytest.mark.parametrize(
    "wrong", [{"listener": "first"}, {"samples": "all"}, {"max_turns": 0}, {"max_turns": 2.5}, {"max_turns": True}]
)
def test_a_rule_that_is_none_is_named(wrong):
    (argument,) = wrong
    with pytest.raises(ConfigError, match=f"{argument}: got"):
        Sampling(**wrong)


def test_what_is_left_out_is_told_in_words(work, caplog):
    for split, speakers in zip(SPLITS, ("AB", "AB", "ABB")):
        work.add(split, split, said(speakers), Sampling())
    work.leave_out("calls.csv, line 7 (9_1)", FieldError("audio_path", "'b.wav' does not exist", "correct the path"))
    work.write()
    assert caplog.messages == [
        f"entries left out: 1, all in {work.target / 'rejects.jsonl'}; "
        "the first: calls.csv, line 7 (9_1): audio_path 'b.wav' does not exist"
    ]


def test_a_share_is_drawn_by_the_seed():
    assert draw(40, 0.05, seed=42) == draw(40, 0.05, seed=42)
    assert len(draw(3, 0.05, seed=42)) == 1
    with pytest.raises(ConfigError, match=r"test_share: is 1.5"):
        draw(3, 1.5, seed=42, argument="test_share")


def test_a_file_that_stands_twice_is_not_guessed(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.csv").touch()
    with pytest.raises(ConfigError, match=r"holds train.csv 2 times"):
        find(tmp_path, "train.csv")
    assert find(tmp_path, "valid.csv") is None
    (tmp_path / "train.csv").touch()
    assert find(tmp_path, "train.csv") == tmp_path / "train.csv"


def test_text_keeps_what_is_no_windows_character(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffCafé – naïve \x85".encode())
    assert text_of(tmp_path / "a.txt") == "Café – naïve …"


def test_results_of_threads_keep_the_order_and_an_error_ends_the_work():
    assert list(in_parallel(lambda item: item * 2, [3, 1, 2], 2, "doubling", "number")) == [6, 2, 4]
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda item: 1 / item, [1, 0], 2, "dividing", "number"))


TRAIN_YAML = """
data_folder: !PLACEHOLDER
listener: replier
prepare:
    data_folder: !ref <data_folder>
    manifests: results/toy
    listener: !ref <listener>
"""


@pytest.fixture
def train_yaml(tmp_path) -> Path:
    path = tmp_path / "Toy" / "hparams" / "train.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(TRAIN_YAML)
    return path


def test_a_preparer_by_hand_goes_by_the_train_yaml(train_yaml):
    calls = []

    def prepare(**settings: object) -> None:
        """Write ``train.jsonl``."""
        calls.append(settings)

    prepare_alone(prepare, train_yaml, ["DATA"])
    prepare_alone(prepare, train_yaml, ["DATA", "--output", "here", "--listener=second"])
    assert calls == [
        {"data_folder": "DATA", "manifests": "results/toy", "listener": "replier"},
        {"data_folder": "DATA", "manifests": "here", "listener": "second"},
    ]


def test_a_preparer_by_hand_names_what_it_does_not_know(train_yaml, capsys):
    def prepare(**_: object) -> None:
        """Write ``train.jsonl``."""

    with pytest.raises(SystemExit, match=r"error: .*has no key listner; did you mean listener"):
        prepare_alone(prepare, train_yaml, ["DATA", "--listner=second"])
    with pytest.raises(SystemExit) as wrong:
        prepare_alone(prepare, train_yaml, ["DATA", "second"])
    assert wrong.value.code == 2
    assert "second is not --key=value" in capsys.readouterr().err
