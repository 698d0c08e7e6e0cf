"""YAML: overrides find their file, and back ends are swapped by one word."""

from __future__ import annotations

from pathlib import Path

import pytest

from es4r_toolkit.errors import ConfigError
from es4r_toolkit.hparams import build, compose, keys, localize, model_file, plain

TRAIN = "epochs: 3\nmodel: !include:model.yaml\nwidth: !ref <model[encoder][width]>\n"
MODEL = (
    "encoder: !include:parts/small.yaml\nvoice: !include:parts/loud.yaml\n    gain: !ref <gain>\ngain: 2\nmode: soft\n"
)


@pytest.fixture
def recipe(tmp_path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "train.yaml").write_text(TRAIN)
    (tmp_path / "model.yaml").write_text(MODEL)
    (tmp_path / "parts" / "small.yaml").write_text("width: 8\ndepth: 1\n")
    (tmp_path / "parts" / "large.yaml").write_text("width: 64\n")
    (tmp_path / "parts" / "loud.yaml").write_text("gain: !PLACEHOLDER\nname: loud\n")
    (tmp_path / "parts" / "calm.yaml").write_text("gain: !PLACEHOLDER\nname: calm\n")
    return tmp_path / "train.yaml"


def test_a_file_without_overrides_is_itself_with_its_includes(recipe):
    assert build(compose(recipe)) == {
        "epochs": 3,
        "model": {
            "encoder": {"width": 8, "depth": 1},
            "voice": {"gain": 2, "name": "loud"},
            "gain": 2,
            "mode": "soft",
        },
        "width": 8,
    }


def test_an_override_goes_to_the_file_that_has_the_key(recipe):
    built = build(compose(recipe, {"epochs": 1, "mode": "hard", "depth": 5}))
    assert (built["epochs"], built["model"]["mode"], built["model"]["encoder"]["depth"]) == (1, "hard", 5)


def test_what_refers_to_an_overridden_value_follows_it(recipe):
    assert build(compose(recipe, {"gain": 7}))["model"]["voice"]["gain"] == 7
    assert build(compose(recipe, {"width": 9}))["width"] == 9


def test_a_back_end_is_swapped_by_the_name_of_its_fragment(recipe):
    built = build(compose(recipe, {"encoder": "large"}))
    assert built["model"]["encoder"] == {"width": 64}
    assert built["width"] == 64


def test_a_swapped_back_end_keeps_its_arguments(recipe):
    assert build(compose(recipe, {"voice": "calm"}))["model"]["voice"] == {"gain": 2, "name": "calm"}


def test_what_only_the_first_back_end_left_open_is_not_given_to_another(recipe):
    (recipe.parent / "parts" / "own.yaml").write_text("gain: 9\nname: own\n")
    assert build(compose(recipe, {"voice": "own"}))["model"]["voice"] == {"gain": 9, "name": "own"}
    assert build(compose(recipe, {"voice": "own", "voice_gain": 4}))["model"]["voice"]["gain"] == 4


def test_a_back_end_is_swapped_by_a_file_anywhere(recipe, tmp_path):
    (tmp_path / "mine.yaml").write_text("width: 5\n")
    assert build(compose(recipe, {"encoder": str(tmp_path / "mine.yaml")}))["width"] == 5


def test_overriding_leaves_the_files_as_they_are(recipe):
    before = {path: path.read_text() for path in recipe.parent.rglob("*.yaml")}
    compose(recipe, {"encoder": "large", "epochs": 9, "gain": 1})
    assert before == {path: path.read_text() for path in recipe.parent.rglob("*.yaml")}


@pytest.mark.parametrize("wrong", ["huge", "parts/none.yaml", "/tmp"])
def test_a_back_end_that_is_not_there_is_refused_with_the_choices(recipe, wrong):
    with pytest.raises(ConfigError, match="large, loud, small") as caught:
        compose(recipe, {"encoder": wrong})
    assert f"--encoder={wrong}" in str(caught.value)


def test_a_mistyped_key_is_refused_with_the_nearest_one(recipe):
    with pytest.raises(ConfigError, match="did you mean epochs"):
        compose(recipe, {"epoch": 1})
    with pytest.raises(ConfigError, match=r"its keys are .*mode"):
        compose(recipe, {"zzzzzz": 1})


def test_the_inside_of_a_fragment_is_overridden_by_the_fragments_name_and_its_own(recipe):
    built = build(compose(recipe, {"voice_name": "me", "encoder_depth": 4, "encoder_width": 3}))
    assert built["model"]["voice"] == {"gain": 2, "name": "me"}
    assert built["model"]["encoder"] == {"width": 3, "depth": 4}
    assert built["width"] == 3
    with pytest.raises(ConfigError, match="name stand inside voice; give --voice_name"):
        compose(recipe, {"name": "me"})


def test_a_swapped_back_end_takes_an_argument_of_its_own(recipe):
    (recipe.parent / "parts" / "odd.yaml").write_text("gain: 1\nwarmth: 2\n")
    built = build(compose(recipe, {"voice": "odd", "voice_warmth": 5, "voice_gain": 6}))
    assert built["model"]["voice"] == {"gain": 6, "warmth": 5}
    with pytest.raises(ConfigError, match="has no key voice_warmth"):
        compose(recipe, {"voice_warmth": 5})
    assert compose(recipe, {"voice_warmth": 5}, strict=False) == compose(recipe)


def test_what_stands_beside_a_whole_model_is_said_as_on_the_command_line(recipe):
    recipe.write_text(
        TRAIN.replace("model.yaml\n", "model.yaml\n    encoder: large\n    mode: hard\n    voice_name: me\n")
    )
    built = build(compose(recipe, {"gain": 5, "mode": "soft"}))
    assert built["model"]["encoder"] == {"width": 64}
    assert built["model"]["voice"] == {"gain": 5, "name": "me"}
    assert built["model"]["mode"] == "soft", "the command line goes first"
    assert model_file(recipe)[1] == {"encoder": "large", "mode": "hard", "voice_name": "me"}
    with pytest.raises(ConfigError, match="has no key gian"):
        compose(recipe, {"gian": 5})


def test_every_key_that_can_be_overridden_is_known(recipe):
    expected = {"epochs", "model", "width", "encoder", "voice", "gain", "mode", "depth", "name"}
    assert keys(recipe) == expected | {"encoder_width", "encoder_depth", "voice_gain", "voice_name"}


def test_the_model_file_of_a_train_file_is_found(recipe):
    assert model_file(recipe) == (recipe.parent / "model.yaml", {})
    with pytest.raises(ConfigError, match="includes no model"):
        model_file(recipe.parent / "model.yaml")


@pytest.mark.parametrize(
    ("text", "problem"), [("a: [1, 2\n", "is not YAML"), ("- 1\n- 2\n", "no mapping"), ("", "no mapping")]
)
def test_a_file_that_is_no_mapping_is_named(tmp_path, text, problem):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem) as caught:
        compose(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        compose(tmp_path / "none.yaml")


def test_plain_values_construct_nothing():
    text = "a: !new:es4r_toolkit.lobes.StyleFuser\n    silence: 0.5\nb: [1, {c: 2}]\n"
    assert plain(text) == {"a": {"silence": 0.5}, "b": [1, {"c": 2}]}


def test_paths_within_the_model_folder_become_paths_on_this_machine(tmp_path):
    text = "source: '@model/llm'\nmany: ['@model/a', 'b@model/']\nother: hub/name\n"
    assert plain(localize(text, tmp_path)) == {
        "source": str(tmp_path / "llm"),
        "many": [str(tmp_path / "a"), "b@model/"],
        "other": "hub/name",
    }
