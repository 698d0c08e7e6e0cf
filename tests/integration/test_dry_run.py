"""A dry run builds a recipe without weights and network, and what it reckons is what a real run has."""

from __future__ import annotations

import sys

import pytest
import torch
from tones import TRAIN_YAML

from es4r_toolkit.backends.causal_lm import CausalLM
from es4r_toolkit.backends.checkpoints import is_planning, planning
from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.errors import BackendError, ConfigError
from es4r_toolkit.hparams import build, compose
from es4r_toolkit.planning import GIB, NF4, Workload, dry_run, render, saved_bytes
from es4r_toolkit.training import run_recipe

AVAMERG = TRAIN_YAML.parents[2] / "AvaMERG" / "hparams" / "train_qwen3.yaml"
FULL = {
    "encoder": "whisper_large_v3",
    "encoder_source": "openai/whisper-large-v3",
    "llm": "qwen3_8b",
    "llm_source": "Qwen/Qwen3-8B",
}


@pytest.fixture
def overrides(tones):
    return {"data_folder": str(tones), "backbones": str(tones / "backbones"), "llm": str(tones / "llm.yaml")}


def test_a_full_size_recipe_is_planned_without_weights_and_network(offline):
    plan = dry_run(TRAIN_YAML, FULL)
    frozen = {part.name: part.frozen for part in plan.parts}
    # Qwen3-8B's model card: 8.2 billion. large-v3's encoder is the larger half of 1.54 billion without the vocabulary.
    assert frozen["generation.llm"] == 8_190_735_360
    assert frozen["understanding.encoder"] == 636_968_960
    # Rank 16 on four projections of 36 layers; their widths in and out.
    widths = [(4096, 4096), (4096, 1024), (4096, 1024), (4096, 4096)]
    lora = {part.name: part.trained for part in plan.parts}["generation.llm"]
    assert lora == 36 * 16 * sum(inner + outer for inner, outer in widths)
    sizes = {entry.source: entry.size for entry in plan.checkpoints}
    assert sizes["Qwen/Qwen3-8B"] == 2 * 8_190_735_360
    assert sizes["openai/whisper-large-v3"] / 1e9 == pytest.approx(3.09, abs=0.01)  # the published file's size
    assert 16 * GIB < plan.inference["weights"] < 18 * GIB
    page = render(plan)
    assert "would be downloaded" in page
    assert "Qwen/Qwen3-8B" in page


def test_a_dry_run_leaves_no_trace(tmp_path, monkeypatch, capsys, offline):
    monkeypatch.chdir(tmp_path)
    arguments = [f"--{key}={value}" for key, value in {**FULL, "llm": "qwen3_0_6b"}.items()]
    assert run_recipe([str(TRAIN_YAML), "--dry_run", *arguments], steps=[prepare]) == {}
    assert "memory for training, 16 dialogues" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert not is_planning()
    assert torch.zeros(1).device.type == "cpu"


def prepare(**_: object) -> None:
    raise AssertionError("a dry run prepared a corpus")


def test_weights_are_counted_as_the_built_pipeline_has_them(overrides):
    plan = dry_run(TRAIN_YAML, overrides)
    pipeline = build(compose(TRAIN_YAML, overrides))["model"]["pipeline"]
    trained = sum(weight.numel() for weight in pipeline.parameters() if weight.requires_grad)
    assert sum(part.trained for part in plan.parts) == trained
    assert sum(part.frozen for part in plan.parts) == sum(weight.numel() for weight in pipeline.parameters()) - trained
    assert sum(part.size for part in plan.parts) == sum(weight.nbytes for weight in pipeline.parameters())
    assert all(entry.is_local for entry in plan.checkpoints)
    assert "nothing would be downloaded" in render(plan)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_frozen_weights_are_no_activations(device):
    """Of frozen layers the backward pass needs the weights, which are there anyway, and what non-linear steps saw."""
    with torch.device(device):
        layers = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))
        inputs = torch.zeros(5, 8, requires_grad=True)
    layers.requires_grad_(False)
    # Of tanh its output, 5 x 32 numbers of four bytes.
    assert saved_bytes(lambda: layers(inputs)) == 5 * 32 * 4


def test_affectprobe_is_planned_before_its_backbones_are_there(tmp_path, offline):
    plan = dry_run(TRAIN_YAML, {"data_folder": str(tmp_path), "backbones": "results/not/there"})
    frozen = {part.name: part.frozen for part in plan.parts}
    assert 100_000 < frozen["understanding.encoder"] < 1_000_000
    assert 100_000 < frozen["generation.llm"] < 1_000_000


def test_a_recognizer_is_planned_by_the_sizes_that_the_encoder_states(offline):
    shared = {"recognizer": "whisper", "recognizer_source": "openai/whisper-large-v3"}
    plan = dry_run(AVAMERG, {"data_folder": "x", **shared})
    (decoder,) = (part for part in plan.parts if part.name == "recognizer.model")
    # The other half of 1.54 billion: 907 million, the vocabulary with it.
    assert decoder.frozen == pytest.approx(907e6, rel=0.01)
    assert len(plan.checkpoints) == 2, "loaded once"


@pytest.mark.parametrize("name", ["llm_source", "encoder_source"])
def test_a_folder_that_is_not_there_is_no_download(name, tmp_path):
    with pytest.raises(BackendError, match="no such folder"):
        dry_run(AVAMERG, {"data_folder": "x", name: str(tmp_path / "nowhere")})


def test_whoever_forgets_the_corpus_is_told_so():
    with pytest.raises(ConfigError, match="data_folder"):
        dry_run(AVAMERG, {})


@pytest.mark.parametrize(
    "swap",
    [
        {"voice": "styletts2", "voice_source": "somebody/styletts2"},
        {"recognizer": "whisper", "recognizer_source": "openai/whisper-large-v3"},
        {"encoder": "wavlm_large", "encoder_max_frames": 100},
        {"llm": "qwen2_5_7b", "llm_revision": "main", "voice_rate": 150},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", ["qwen3", "llama"])
def test_parts_of_the_papers_recipe_are_swapped_in_either_file(size, swap, offline):
    plan = dry_run(AVAMERG.with_name(f"train_{size}.yaml"), {"data_folder": "x", **swap})
    assert len(plan.parts) >= 6


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_language_models_activations_are_those_of_a_real_step(qwen3_folder, checkpointing):
    def built():
        return CausalLM(qwen3_folder, lora={"rank": 2}, gradient_checkpointing=checkpointing).train()

    lm = built()
    embeds = torch.randn(3, 40, lm.hidden_dim, requires_grad=True)
    valid, adapted = torch.ones(3, 40, dtype=torch.bool), torch.zeros(3, 40, dtype=torch.bool)
    adapted[:, 5:11] = True
    real = saved_bytes(lambda: lm.logits(embeds, valid, adapted, last=9))
    with planning():
        reckoned = saved_bytes(lambda: built().rehearse(3, 40, 6, last=9))
    assert reckoned == pytest.approx(real, rel=0.1)


def test_the_speech_encoders_activations_are_those_of_a_real_step(whisper_folder):
    mels = torch.randn(2, 80, 16, requires_grad=True)
    real = saved_bytes(lambda: WhisperSpeechEncoder(whisper_folder).encode(mels, torch.ones(2))[0])
    with planning():
        reckoned = saved_bytes(lambda: WhisperSpeechEncoder(whisper_folder).rehearse([80, 80]))
    # The two convolutions and the mels are left out: of a deep encoder little, of this one layer much.
    assert 0.2 * real < reckoned < real


def test_four_bits_a_weight_are_counted(tones, overrides):
    whole = dry_run(TRAIN_YAML, {**FULL, "llm_dtype": "bfloat16"})
    quantized = dry_run(TRAIN_YAML, {**FULL, "llm_quantization": "4bit"})
    linear = 36 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 12288)
    saved = whole.inference["weights"] - quantized.inference["weights"]
    assert saved == pytest.approx(linear * (2 - NF4), rel=1e-3)


def test_a_longer_workload_takes_more():
    assert Workload(8).history == 5 * (28 + 3)
    assert Workload(8, words=40).reply > Workload(8).reply


@pytest.mark.parametrize("voice", ["styletts2", "kokoro"])
def test_a_voice_is_planned_without_its_package(tones, overrides, voice, monkeypatch):
    for package in ("styletts2", "styletts2.models", "kokoro", "kokoro.model"):
        monkeypatch.setitem(sys.modules, package, None)
    plan = dry_run(TRAIN_YAML, {**overrides, "voice": voice, "voice_source": f"somebody/{voice}"})
    (part,) = (part for part in plan.parts if part.name == "synthesis.voice")
    assert 80e6 < part.frozen < 140e6
    assert f"somebody/{voice}" in render(plan)


def test_a_hub_name_whose_sizes_nobody_states_is_refused(overrides):
    with pytest.raises(BackendError, match="somebody/some-whisper: its sizes are not stated"):
        dry_run(TRAIN_YAML, {**overrides, "encoder_source": "somebody/some-whisper"})
