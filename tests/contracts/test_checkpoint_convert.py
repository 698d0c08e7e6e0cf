"""Published checkpoints whose weights are pickles are converted once, and then are what they were."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from published import SELF_SUPERVISED, save_self_supervised
from safetensors.torch import load_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from es4r_toolkit.backends import checkpoint_convert
from es4r_toolkit.backends.checkpoint_convert import convert
from es4r_toolkit.backends.hf_encoder import HFSpeechEncoder
from es4r_toolkit.cli import app
from es4r_toolkit.errors import BackendError

# What older versions of PyTorch call the two parts of a weight that is kept as length and direction.
OLD_NAMES = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


def old_name(name: str) -> str:
    for now, then in OLD_NAMES.items():
        name = name.replace(now, then)
    return name


@pytest.fixture(scope="module", params=SELF_SUPERVISED)
def published(request, tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint, and the same as it was published years ago."""
    folder, old = tmp_path_factory.mktemp("new"), tmp_path_factory.mktemp("old") / "published"
    save_self_supervised(folder, request.param)
    shutil.copytree(folder, old)
    weights = load_file(old / "model.safetensors")
    (old / "model.safetensors").unlink()
    renamed = {old_name(name): weight for name, weight in weights.items()}
    assert renamed.keys() != weights.keys()
    torch.save(renamed, old / "pytorch_model.bin")
    return folder, old


@pytest.fixture
def language_model(tmp_path) -> tuple[Path, Qwen3ForCausalLM]:
    """One whose last layer is its table of embeddings, in two pickles with an index."""
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    model = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads))
    folder = tmp_path / "published"
    model.config.save_pretrained(folder)
    names = sorted(model.state_dict())
    halves = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in halves.items():
        torch.save({name: model.state_dict()[name] for name in part}, folder / file)
    places = {name: file for file, part in halves.items() for name in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "vocab.txt").write_text("a\n")
    (folder / "modeling_own.py").write_text("raise SystemExit\n")
    return folder, model


def test_what_was_refused_is_read_once_converted_and_hears_the_same(published, tmp_path):
    folder, old = published
    with pytest.raises(BackendError, match=f"es4r convert-checkpoint {old} --output FOLDER"):
        HFSpeechEncoder(old)
    converted = convert(old, tmp_path / "converted")
    frames = torch.randn(2, 40, HFSpeechEncoder(folder).n_mels)
    before, after = (HFSpeechEncoder(source).eval() for source in (folder, converted))
    lens = torch.tensor([1, 0.5])
    assert torch.equal(before.encode(frames, lens)[0], after.encode(frames, lens)[0])


def test_several_files_and_tied_weights_stay_what_they_were(language_model, tmp_path):
    folder, model = language_model
    target = convert(folder, tmp_path / "converted", progress=lambda files, unit: files)
    assert sorted(path.name for path in target.iterdir()) == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "vocab.txt",
    ]
    read = Qwen3ForCausalLM.from_pretrained(target, use_safetensors=True)
    for name, weight in model.state_dict().items():
        assert torch.equal(read.state_dict()[name], weight), name


def test_both_names_of_one_weight_in_one_file_are_kept(language_model, tmp_path):
    folder, model = language_model
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    weights = load_file(convert(folder, tmp_path / "converted") / "model.safetensors")
    assert torch.equal(weights["model.embed_tokens.weight"], weights["lm_head.weight"])


class Hostile:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_code_is_refused_and_nothing_is_left(language_model, tmp_path):
    folder, _ = language_model
    torch.save({"weight": Hostile(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(BackendError, match="cannot be read as weights"):
        convert(folder, tmp_path / "converted")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        ([torch.ones(1)], "holds a list, not weights by name"),
        ({"model": {"weight": torch.ones(1)}}, "holds 'model', a dict, beside weights"),
        ({"weight": torch.ones(1), "epoch": 3}, "holds 'epoch', a int, beside weights"),
    ],
    ids=["list", "nested", "training"],
)
def test_what_holds_anything_but_weights_is_named(language_model, tmp_path, held, problem):
    folder, _ = language_model
    torch.save(held, folder / "pytorch_model.bin")
    with pytest.raises(BackendError, match=problem):
        convert(folder, tmp_path / "converted")


def test_an_index_that_leads_out_of_the_folder_is_refused(language_model, tmp_path):
    folder, _ = language_model
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.bin")
    index = folder / "pytorch_model.bin.index.json"
    for text, problem in (
        ('{"weight_map": {"weight": "../other.bin"}}', "names '../other.bin', no file beside it"),
        ('{"weight_map": ["weight"]}', "cannot be read"),
        ('{"weight_map": {"weight": "pytorch_model-gone.bin"}}', "no such file"),
    ):
        index.write_text(text)
        with pytest.raises(BackendError, match=problem):
            convert(folder, tmp_path / "converted")
    index.unlink()
    with pytest.raises(BackendError, match="there is nothing to convert"):
        convert(folder, tmp_path / "converted")
    with pytest.raises(BackendError, match="no such folder"):
        convert(tmp_path / "gone", tmp_path / "converted")


def test_of_the_hub_weights_and_what_belongs_to_them_are_fetched_no_code(language_model, tmp_path, monkeypatch):
    folder, _ = language_model
    asked = []

    def fetch(source: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((source, revision, [path for path in folder.iterdir() if any(map(path.match, allow_patterns))]))
        return str(folder)

    monkeypatch.setattr(checkpoint_convert, "snapshot_download", fetch)
    convert("somebody/model", tmp_path / "converted", revision="abc")
    ((source, revision, files),) = asked
    assert (source, revision) == ("somebody/model", "abc")
    assert set(folder.iterdir()) - set(files) == {folder / "modeling_own.py"}


def test_the_command_line_converts_and_says_how_to_go_on(language_model, tmp_path, capsys):
    target = tmp_path / "converted"
    with pytest.raises(SystemExit, match="0"):
        app(["convert-checkpoint", str(language_model[0]), "--output", str(target)])
    assert f"written to {target}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="1"):
        app(["convert-checkpoint", str(language_model[0]), "--output", str(target)])
    assert "is there already" in capsys.readouterr().err
