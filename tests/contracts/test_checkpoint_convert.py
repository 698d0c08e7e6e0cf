"""Published checkpoints whose weights are pickles are converted once, and then are what they were."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published import SELF_SUPERVISED, save_self_supervised
from safetensors.torch import load_file
from soak import examples

from es4r_toolkit.backends import checkpoint_convert
from es4r_toolkit.backends.causal_lm import CausalLM
from es4r_toolkit.backends.checkpoint_convert import convert
from es4r_toolkit.backends.checkpoints import read_pickle
from es4r_toolkit.backends.hf_encoder import HFSpeechEncoder
from es4r_toolkit.backends.untrusted import instead_of_pickles
from es4r_toolkit.cli import app
from es4r_toolkit.errors import BackendError

SINGLE, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
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
def language_model(qwen3_folder, tmp_path) -> Path:
    """One whose last layer is its table of embeddings, published as two pickles with an index."""
    folder = tmp_path / "published"
    shutil.copytree(qwen3_folder, folder)
    (folder / "model.safetensors").unlink()
    weights = load_file(qwen3_folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    names = sorted(weights)
    places = {name: f"pytorch_model-0000{1 + place % 2}-of-00002.bin" for place, name in enumerate(names)}
    for file in set(places.values()):
        torch.save({name: weights[name] for name in names if places[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    # What repositories hold besides that publish other forms too, or code.
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "model-00001-of-00009.safetensors"}}')
    (folder / "modeling_own.py").write_text("raise SystemExit\n")
    return folder


def test_what_was_refused_is_read_once_converted_and_hears_the_same(published, tmp_path):
    folder, old = published
    with pytest.raises(BackendError, match=f"es4r convert-checkpoint {old} --output FOLDER"):
        HFSpeechEncoder(old)
    converted = convert(old, tmp_path / "converted")
    frames = torch.randn(2, 40, HFSpeechEncoder(folder).n_mels)
    before, after = (HFSpeechEncoder(source).eval() for source in (folder, converted))
    lens = torch.tensor([1, 0.5])
    assert torch.equal(before.encode(frames, lens)[0], after.encode(frames, lens)[0])


def test_a_language_model_of_several_files_goes_along_with_its_tokenizer_and_template(
    language_model, qwen3_folder, tmp_path
):
    target = convert(language_model, tmp_path / "converted", progress=lambda files, unit: files)
    beside = {path.name for path in qwen3_folder.iterdir()} - {"model.safetensors"}
    weights = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"}
    assert {path.name for path in target.iterdir()} == beside | weights
    before, after = CausalLM(qwen3_folder), CausalLM(target)
    assert before.state_dict().keys() == after.state_dict().keys()
    assert all(torch.equal(weight, after.state_dict()[name]) for name, weight in before.state_dict().items())


def test_weights_that_share_memory_each_have_their_own(language_model, tmp_path):
    table = torch.randn(4, 3)
    held = {"table": table, "last": table, "turned": table.T, "row": table[1], "half": table.half(), "empty": table[:0]}
    torch.save(held, language_model / SINGLE)
    weights = load_file(convert(language_model, tmp_path / "converted") / "model.safetensors")
    assert weights.keys() == held.keys()
    assert all(torch.equal(weight, held[name]) and weight.dtype == held[name].dtype for name, weight in weights.items())


# -- what is refused ---------------------------------------------------------------------------------------------------


class Hostile:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older form"])
def test_a_pickle_that_runs_code_is_refused_and_nothing_is_left(language_model, tmp_path, zipped):
    torch.save({"weight": Hostile(tmp_path / "ran")}, language_model / SINGLE, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BackendError, match=r"cannot be read as weights \(.*mkdir"):
        convert(language_model, tmp_path / "converted")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        ([torch.ones(1)], "holds a list, not weights by name"),
        ({}, "holds no weight"),
        ({"model": {"weight": torch.ones(1)}}, "holds 'model', a dict, beside weights"),
        ({"weight": torch.ones(1), "epoch": 3}, "holds 'epoch', a int, beside weights"),
        ({3: torch.ones(1)}, "holds 3, a Tensor, beside weights"),
        ({"__metadata__": torch.ones(1)}, "holds '__metadata__' in a form"),
        ({"a\n": torch.ones(1)}, "in a form that safetensors do not have"),
        ({"weight": torch.ones(2, 2).to_sparse()}, "in a form that safetensors do not have"),
        ({"weight": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, "in a form that safetensors"),
        ({"weight": torch.ones(1, dtype=torch.complex128)}, "in a form that safetensors do not have"),
        ({"weight": torch.ones(1, device="meta")}, "in a form that safetensors do not have"),
        ({"weight": torch.ones(1).expand(1 << 42)}, "in a form that safetensors do not have"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_holds_anything_but_weights_is_named(language_model, tmp_path, held, problem):
    torch.save(held, language_model / SINGLE)
    with pytest.raises(BackendError, match=problem):
        convert(language_model, tmp_path / "converted")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


@settings(max_examples=examples(60), deadline=None)
@given(zipped=st.booleans(), share=st.floats(0, 1, exclude_max=True), changed=st.booleans(), byte=st.integers(0, 255))
def test_a_file_that_was_cut_or_changed_anywhere_is_one_named_error_or_is_read(
    tmp_path_factory, zipped, share, changed, byte
):
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(3), "bias": torch.ones(1)}, buffer, _use_new_zipfile_serialization=zipped)
    data = bytearray(buffer.getvalue())
    place = int(share * len(data))
    path = tmp_path_factory.getbasetemp() / "cut.bin"
    if changed:
        data[place] = byte
    path.write_bytes(data if changed else data[:place])
    with contextlib.suppress(BackendError):
        read_pickle(path)


def test_an_index_that_says_other_than_its_files_is_refused(language_model, tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.bin")
    torch.save({"weight": torch.ones(1)}, language_model / "one.bin")
    torch.save({"weight": torch.zeros(1)}, language_model / "two.bin")
    for index, problem in (
        ({"weight": "../other.bin"}, "names '../other.bin', no file beside it"),
        ({"weight": "gone.bin"}, "does not exist"),
        ({"weight": "n" * 5000}, "cannot be reached"),
        ({"weight": "one.bin", "bias": "one.bin"}, "names 1 weights that no file holds, bias the first"),
        ({"weight": "one.bin", "bias": "two.bin"}, "holds weight, which another file holds too"),
        ({}, "holds no weight"),
        (["weight"], "cannot be read"),
        ({"weight": {}}, "cannot be read"),
    ):
        (language_model / INDEX).write_text(json.dumps({"weight_map": index}))
        with pytest.raises(BackendError, match=problem):
            convert(language_model, tmp_path / "converted")
    (language_model / INDEX).write_text("[" * 200_000)
    with pytest.raises(BackendError, match="cannot be read"):
        convert(language_model, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


def test_where_there_is_nothing_to_convert_nothing_promises_it(language_model, tmp_path):
    for path in [*language_model.glob("pytorch_model*"), language_model / "model.safetensors.index.json"]:
        path.unlink()
    with pytest.raises(BackendError, match="there is nothing to convert"):
        convert(language_model, tmp_path / "converted")
    with pytest.raises(BackendError, match=r"give a checkpoint in safetensors"):
        CausalLM(language_model)
    with pytest.raises(BackendError, match="no such folder"):
        convert(tmp_path / "gone", tmp_path / "converted")


def test_an_adapter_beside_the_weights_is_not_left_behind_in_silence(language_model, tmp_path):
    (language_model / "adapter_config.json").write_text("{}")
    with pytest.raises(BackendError, match="has an adapter beside its weights"):
        convert(language_model, tmp_path / "converted")


def test_a_folder_that_cannot_be_made_is_named_and_half_of_one_is_not_left(language_model, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "below", tmp_path / ("n" * 300), Path("/proc/converted")):
        with pytest.raises(BackendError, match="cannot be made"):
            convert(language_model, output)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(BackendError, match="No space left on device"):
        convert(language_model, tmp_path / "converted")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "published"]


def test_a_link_to_an_empty_folder_and_the_folder_one_stands_in_will_do(language_model, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    convert(language_model, tmp_path / "link")
    assert (tmp_path / "empty" / "config.json").is_file()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(language_model, ".")
    assert (tmp_path / "here" / "config.json").is_file()


# -- where from, and the command --------------------------------------------------------------------------------------


def test_of_the_hub_weights_and_what_belongs_to_them_are_fetched_no_code(language_model, tmp_path, monkeypatch):
    asked = []

    def fetch(source: str, revision: str | None, allow_patterns: list[str]) -> str:
        files = [path for path in language_model.iterdir() if any(map(path.match, allow_patterns))]
        asked.append((source, revision, files))
        return str(language_model)

    monkeypatch.setattr(checkpoint_convert, "snapshot_download", fetch)
    convert("somebody/model", tmp_path / "converted", revision="abc")
    ((source, revision, files),) = asked
    assert (source, revision) == ("somebody/model", "abc")
    assert set(language_model.iterdir()) - set(files) == {language_model / "modeling_own.py"}


def test_the_command_line_converts_and_says_how_to_go_on(language_model, tmp_path, capsys):
    target = tmp_path / "converted"
    with pytest.raises(SystemExit, match="0"):
        app(["convert-checkpoint", str(language_model), "--output", str(target)])
    assert f"written to {target}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="1"):
        app(["convert-checkpoint", str(language_model), "--output", str(target)])
    assert "is there already" in capsys.readouterr().err


def test_what_to_type_is_quoted_and_names_the_revision():
    told = instead_of_pickles("my models/wavlm", revision="abc")
    assert told.endswith("es4r convert-checkpoint 'my models/wavlm' --revision abc --output FOLDER")
