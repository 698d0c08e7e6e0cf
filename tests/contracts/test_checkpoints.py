"""A checkpoint that cannot be used is refused by name, and never read as a pickle."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from es4r_toolkit.backends.building import build_whisper
from es4r_toolkit.backends.causal_lm import CausalLM
from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.errors import BackendError

# -- checkpoints that cannot be used ----------------------------------------------------------------------------------

BUILDERS = {"whisper": WhisperSpeechEncoder, "causal_lm": CausalLM}


@pytest.fixture(params=BUILDERS)
def checkpoint(request, tmp_path, whisper_folder, qwen3_folder):
    """What loads it, and a copy to spoil."""
    source = whisper_folder if request.param == "whisper" else qwen3_folder
    return BUILDERS[request.param], shutil.copytree(source, tmp_path / "copy")


def test_a_missing_folder_is_named_at_once(checkpoint, tmp_path):
    load, _ = checkpoint
    with pytest.raises(BackendError, match="no such folder") as caught:
        load(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)


def test_a_folder_without_weights_is_refused(checkpoint):
    load, folder = checkpoint
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackendError, match=r"cannot be loaded.*safetensors"):
        load(folder)


def test_pickled_weights_are_never_read(checkpoint, tmp_path):
    load, folder = checkpoint

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (folder / "model.safetensors").unlink()
    torch.save({"trap": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(BackendError):
        load(folder)
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_that_lacks_a_weight_is_refused(checkpoint):
    load, folder = checkpoint
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in sorted(weights) if "layers.0" in name)
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackendError, match=r"lacks 1 weights, .*layers\.0"):
        load(folder)


def test_a_checkpoint_with_a_misshapen_weight_is_refused(checkpoint):
    load, folder = checkpoint
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if "layers.0" in name and weights[name].dim() == 2)
    weights[name] = weights[name][:-1].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackendError):
        load(folder)


def test_weights_that_were_cut_short_are_refused(checkpoint):
    load, folder = checkpoint
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BackendError) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_a_config_that_is_no_json_is_refused(checkpoint):
    load, folder = checkpoint
    (folder / "config.json").write_text("{")
    with pytest.raises(BackendError):
        load(folder)


def test_a_whisper_is_no_language_model_and_the_other_way_round(whisper_folder, qwen3_folder):
    with pytest.raises(BackendError):
        CausalLM(whisper_folder)
    with pytest.raises(BackendError):
        WhisperSpeechEncoder(qwen3_folder)


@pytest.mark.parametrize(
    ("load", "sizes", "problem"),
    [
        (WhisperSpeechEncoder, {"n_mels": 80}, "n_mels is 16, the YAML says 80"),
        (WhisperSpeechEncoder, {"out_dim": 1280}, "out_dim is 32, the YAML says 1280"),
        (CausalLM, {"hidden_dim": 64}, "hidden_dim is 32, the YAML says 64"),
        (CausalLM, {"num_heads": 8}, "num_heads is 4, the YAML says 8"),
    ],
)
def test_sizes_that_differ_from_the_yaml_are_named(whisper_folder, qwen3_folder, load, sizes, problem):
    with pytest.raises(BackendError, match=problem):
        load(whisper_folder if load is WhisperSpeechEncoder else qwen3_folder, **sizes)


def test_a_feature_extractor_of_another_size_is_refused(whisper_folder, tmp_path):
    folder = shutil.copytree(whisper_folder, tmp_path / "copy")
    build_whisper(tmp_path / "other", d_model=32, layers=1, heads=4, n_mels=20, positions=50)
    shutil.copy(tmp_path / "other" / "preprocessor_config.json", folder)
    with pytest.raises(BackendError, match="extractor gives 20 mels, its encoder takes 16"):
        WhisperSpeechEncoder(folder)


def test_a_tokenizer_without_a_chat_template_is_refused(qwen3_folder, tmp_path):
    folder = shutil.copytree(qwen3_folder, tmp_path / "copy")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(BackendError, match="no chat template"):
        CausalLM(folder)


# -- trained weights --------------------------------------------------------------------------------------------------


def test_trained_weights_of_another_system_are_refused(make_pipeline, tmp_path):
    path = tmp_path / "trained.safetensors"
    with pytest.raises(BackendError, match="no such file"):
        make_pipeline("plus").load_trained(path)
    make_pipeline("paper").save_trained(path)
    with pytest.raises(BackendError, match="weights differ by name"):
        make_pipeline("plus").load_trained(path)
    make_pipeline("plus", lora={"rank": 3, "alpha": 4, "dropout": 0.0}).save_trained(path)
    with pytest.raises(BackendError, match=r"lora_A.* is \(3, 32\) there and \(2, 32\) here"):
        make_pipeline("plus").load_trained(path)


def test_trained_weights_that_were_cut_short_are_refused(make_pipeline, tmp_path):
    path, pipeline = tmp_path / "trained.safetensors", make_pipeline("plus")
    pipeline.save_trained(path)
    path.write_bytes(path.read_bytes()[:-100])
    before = {name: weight.clone() for name, weight in pipeline.trained_state().items()}
    with pytest.raises(BackendError, match=r"trained\.safetensors"):
        pipeline.load_trained(path)
    assert all(torch.equal(before[name], weight) for name, weight in pipeline.trained_state().items())
