"""A checkpoint of a stranger is read as data: its own safetensors files, no pickle, no code, in bounded time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file

from es4r_toolkit.backends.causal_lm import CausalLM
from es4r_toolkit.backends.hf_encoder import HFSpeechEncoder
from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.backends.whisper_asr import WhisperRecognizer
from es4r_toolkit.errors import BackendError
from es4r_toolkit.prompt import PromptRenderer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LOADERS: list[Callable[[Path], Any]] = [CausalLM, WhisperSpeechEncoder, HFSpeechEncoder, WhisperRecognizer]


@pytest.fixture(autouse=True)
def nothing_unpickled(monkeypatch):
    """Whatever is loaded, no pickle is opened, not even for its weights only."""

    def refuse(path: object, *_: object, **__: object) -> None:
        raise AssertionError(f"{path} was unpickled")

    monkeypatch.setattr(torch, "load", refuse)


@pytest.fixture
def llm(qwen3_folder, tmp_path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(qwen3_folder, tmp_path / "llm")


@pytest.fixture
def encoder(whisper_folder, tmp_path) -> Path:
    return shutil.copytree(whisper_folder, tmp_path / "encoder")


def settings(folder: Path, name: str = "config.json", **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.is_file() else {}), **values}))


def index(folder: Path, name: str) -> None:
    """An index that says all weights are in one file."""
    names = load_file(folder / WEIGHTS)
    settings(folder, INDEX, metadata={}, weight_map=dict.fromkeys(names, name))


# -- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("pickled", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_a_pickle_is_named_and_left_alone(load, pickled, llm):
    settings(llm, model_type={HFSpeechEncoder: "wavlm", CausalLM: "qwen3"}.get(load, "whisper"))
    settings(llm, "preprocessor_config.json")
    (llm / WEIGHTS).rename(llm / pickled)
    with pytest.raises(BackendError, match=f"has no model.safetensors, but {pickled}, a pickle, which can run code"):
        load(llm)


def test_an_index_may_name_safetensors_beside_it(llm):
    index(llm, "part.safetensors")
    (llm / WEIGHTS).rename(llm / "part.safetensors")
    assert CausalLM(llm).hidden_dim == 32


@pytest.mark.parametrize(
    "name", ["part.bin", "../part.safetensors", "/part.safetensors", "a/part.safetensors", 7, None]
)
def test_an_index_cannot_lead_to_a_pickle_or_out_of_the_folder(llm, name):
    index(llm, name)
    (llm / WEIGHTS).rename(llm.parent / "part.safetensors")
    with pytest.raises(BackendError, match=f"index.json names '{name}', no safetensors file beside it"):
        CausalLM(llm)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 1}', '{"weight_map": {"a": {}}}'])
def test_an_index_that_is_none_is_one_named_error(llm, content):
    (llm / WEIGHTS).unlink()
    (llm / INDEX).write_text(content)
    with pytest.raises(BackendError, match=r"index\.json (cannot be read|names)"):
        CausalLM(llm)


@pytest.mark.parametrize("name", ["adapter_model.bin", "../other.safetensors", "pytorch_model.bin.index.json", 7])
def test_a_configuration_cannot_lead_to_a_pickle(llm, name):
    settings(llm, transformers_weights=name)
    with pytest.raises(BackendError, match=r"names .* as its weights, which are not safetensors"):
        CausalLM(llm)


@pytest.mark.parametrize("adapter", ["adapter_model.bin", "adapter_model.safetensors"])
def test_an_adapter_beside_the_weights_is_refused(llm, adapter):
    settings(llm, "adapter_config.json", peft_type="LORA", base_model_name_or_path="someone/else")
    (llm / adapter).write_bytes(b"")
    with pytest.raises(BackendError, match="has an adapter beside its weights; merge it"):
        CausalLM(llm)


@pytest.mark.parametrize("spoil", ["none", "index", "pickle", "adapter"])
def test_the_same_holds_of_what_the_hub_gives(qwen3_folder, tmp_path, monkeypatch, spoil):
    """What was downloaded before, by its name on the hub; nothing else is asked for."""
    repository = tmp_path / "models--someone--llm"
    folder = shutil.copytree(qwen3_folder, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    if spoil == "none":
        assert CausalLM("someone/llm").hidden_dim == 32
        return
    if spoil == "adapter":
        settings(folder, "adapter_config.json", peft_type="LORA")
    else:
        index(folder, "part.bin")
        (folder / WEIGHTS).rename(folder / "part.bin")
    if spoil == "pickle":
        (folder / INDEX).unlink()
    with pytest.raises(BackendError, match=r"someone/llm: .*(names 'part\.bin'|has no model\.safetensors|an adapter)"):
        CausalLM("someone/llm")


# -- code -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["of a known type", "of a type of its own"])
def test_a_checkpoints_own_python_is_never_run(llm, known):
    trap = f"open({str(llm / 'sprung')!r}, 'w')\n"
    (llm / "own.py").write_text(trap)
    (llm / "custom_generate").mkdir()
    (llm / "custom_generate" / "generate.py").write_text(trap)
    classes = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    settings(llm, auto_map=classes, **({} if known else {"model_type": "own"}))
    settings(llm, "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Tokenizer", None]})
    if known:
        CausalLM(llm)
    else:
        with pytest.raises(BackendError, match="custom code"):
            CausalLM(llm)
    assert not (llm / "sprung").exists()


@pytest.mark.parametrize("attention", ["someone/kernel", "kernels-community/flash-attn2", "flash_attention_2"])
@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_configuration_cannot_ask_for_compiled_code(llm, key, attention):
    settings(llm, **{key: attention})
    assert "/" not in CausalLM(llm).model.config._attn_implementation


TEMPLATES = {
    "a function": "{{ cycler.__init__.__globals__.os.system('touch sprung') }}",
    "all classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a class by a filter": "{{ (''|attr('__class__')).mro() }}",
    "a change of what it is given": "{{ messages.append(1) }}",
    "a file": "{% include '/etc/hostname' %}",
    "a long loop": "{% for one in range(10 ** 9) %}{% endfor %}",
    "a long text": "{{ 'x' * 10 ** 15 }}",
    "itself": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "nothing that can be reckoned": "{{ 1 / 0 }}",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_a_chat_template_reaches_nothing(tokenizer, template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = "{% for message in messages %}{{ message.content }}{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", own + template)
    with pytest.raises(BackendError, match="chat template"):
        PromptRenderer(tokenizer)
    assert not any(tmp_path.iterdir())


# -- sizes ------------------------------------------------------------------------------------------------------------

SIZES = {
    "layers": ("config.json", {"encoder_layers": 10**9}, "encoder_layers is 1000000000, more than 1000"),
    "layers of a part": ("config.json", {"text_config": {"num_layers": 10**9}}, "num_layers is 1000000000"),
    "layers that are no number": ("config.json", {"encoder_layers": "9" * 9}, "cannot be loaded"),
    "a width": ("config.json", {"d_model": 10**8}, "cannot be loaded"),
    "a window": ("config.json", {"max_source_positions": 10**9}, "cannot be loaded"),
    "samples of a frame": ("preprocessor_config.json", {"n_fft": 10**9}, "n_fft is 1000000000, more than 65536"),
    "mel bins": ("preprocessor_config.json", {"feature_size": 10**9}, "feature_size is 1000000000, more than 1024"),
    "a hop of nothing": ("preprocessor_config.json", {"hop_length": 0}, "cannot be loaded"),
}


@pytest.mark.parametrize(("name", "values", "problem"), SIZES.values(), ids=SIZES.keys())
@pytest.mark.timeout(60)
def test_sizes_that_no_model_has_are_refused_at_once(encoder, name, values, problem):
    settings(encoder, name, **values)
    with pytest.raises(BackendError, match=problem):
        WhisperSpeechEncoder(encoder)


def test_a_library_that_a_checkpoint_wants_and_nobody_installed_is_one_named_error(llm):
    settings(llm, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(BackendError, match="cannot be loaded"):
        CausalLM(llm)
