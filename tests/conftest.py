"""Shared fixtures: back ends so small that a whole pipeline runs in milliseconds, made once a session."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from published import save_whisper
from speechbrain.utils.importutils import LazyModule
from transformers import AutoModelForCausalLM

from es4r_toolkit.backends.building import build_qwen3, build_whisper, train_tokenizer
from es4r_toolkit.backends.causal_lm import CausalLM
from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.dialogue import LISTENER, SPEAKER, Dialogue, Turn
from es4r_toolkit.lobes import AffectiveDualAttention, ConvAdapter, MelDownsampler, SpeechQueryFusion, TurnAdapter
from es4r_toolkit.pipeline import EmpathyPipeline
from es4r_toolkit.stages.generation import EmpatheticGeneration
from es4r_toolkit.stages.understanding import EmpatheticUnderstanding

# Hypothesis asks every loaded module for its file; SpeechBrain's lazy modules answer by importing what is not there.
LazyModule.__file__ = None

N_MELS, WIDTH, HEADS = 16, 32, 4
POSITIONS = 50  # one second of mel frames, so that tests reach the end of the window
SENTENCES = [
    "I failed my exam today.",
    "Do you want to talk about it?",
    "Answer the speaker with empathy.",
    "It is hard.",
]
PAPER = {
    "normalization": "none",
    "residual": False,
    "share_levels": True,
    "recency": 0,
    "context": ("fused",),
    "full_window": True,
}
PLUS = {
    "normalization": "dialogue",
    "residual": True,
    "share_levels": False,
    "recency": 3,
    "context": ("text", "fused"),
    "full_window": False,
}


@pytest.fixture
def offline(monkeypatch):
    """No socket can be opened."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something went to the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    """Three real dialogues with speech."""
    folder = Path(__file__).parents[2] / "shared" / "data" / "avamerg_demo"
    if not folder.is_dir():
        pytest.skip(f"the demo dialogues are not in {folder}")
    return folder


@pytest.fixture(scope="session")
def whisper_folder(tmp_path_factory) -> Path:
    """A Whisper checkpoint of one layer and a window of one second."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbones") / "encoder"
    build_whisper(folder, d_model=WIDTH, layers=1, heads=HEADS, n_mels=N_MELS, positions=POSITIONS)
    return folder


@pytest.fixture(scope="session")
def whole_whisper_folder(tmp_path_factory) -> Path:
    """A Whisper checkpoint with its decoder and a window of two seconds."""
    folder = tmp_path_factory.mktemp("whisper")
    save_whisper(folder, N_MELS)
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(SENTENCES * 20, vocab_size=340)


@pytest.fixture(scope="session")
def qwen3_folder(tmp_path_factory, tokenizer) -> Path:
    """A Qwen3 checkpoint of two layers."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbones") / "llm"
    build_qwen3(folder, tokenizer, hidden_size=WIDTH, layers=2, heads=HEADS, intermediate_size=48)
    model = AutoModelForCausalLM.from_pretrained(folder)
    stir(model, 0.4)  # at its initial scale a tied model repeats its last token, whatever came before
    model.save_pretrained(folder)
    return folder


def stir(module: torch.nn.Module, scale: float) -> None:
    """Add noise to every weight that has a gradient: zero-initialised branches would hide what they do."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.requires_grad:
                weight += scale * torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight.dtype)


@pytest.fixture(scope="session")
def stirred() -> Callable[[torch.nn.Module, float], torch.nn.Module]:
    """Give back a module with noise on its trainable weights."""

    def add_noise(module: torch.nn.Module, scale: float = 0.1) -> torch.nn.Module:
        stir(module, scale)
        return module

    return add_noise


@pytest.fixture(scope="session")
def make_pipeline(whisper_folder, qwen3_folder) -> Callable[..., EmpathyPipeline]:
    """Build a tiny pipeline, in eval mode: a preset, then any switch of it; ``noise`` stirs its trainable weights."""

    def make(preset: str = "plus", noise: float = 0.1, dtype=torch.float64, **switches) -> EmpathyPipeline:
        chosen = {**(PAPER if preset == "paper" else PLUS), "levels": "both", "mode": "cross"}
        chosen |= {"placement": "replace", "positions": "frames", "lora_scope": "speech"}
        chosen |= {"lora": {"rank": 2, "alpha": 4, "dropout": 0.0}, **switches}
        torch.manual_seed(3)
        understanding = EmpatheticUnderstanding(
            WhisperSpeechEncoder(whisper_folder, full_window=chosen["full_window"]),
            MelDownsampler(N_MELS, strides=(2, 2)),
            AffectiveDualAttention(
                N_MELS, HEADS, chosen["levels"], chosen["residual"], chosen["share_levels"], chosen["recency"]
            ),
            ConvAdapter(WIDTH, WIDTH, inner_size=WIDTH, strides=(2,)),
            TurnAdapter(N_MELS, WIDTH, WIDTH),
            chosen["placement"],
            chosen["positions"],
            chosen["normalization"],
        )
        llm = CausalLM(qwen3_folder, lora=chosen["lora"])
        fusion = SpeechQueryFusion(WIDTH, HEADS, chosen["residual"], chosen["mode"])
        generation = EmpatheticGeneration(llm, fusion, chosen["context"], chosen["lora_scope"], max_new_tokens=8)
        pipeline = EmpathyPipeline(understanding, generation).to(dtype).eval()
        if noise:
            stir(pipeline, noise)
        return pipeline

    return make


@pytest.fixture(scope="session")
def cached_pipeline(make_pipeline) -> Callable[..., EmpathyPipeline]:
    """The same, built once for each set of switches; for tests that change no weight."""
    return functools.cache(make_pipeline)


def speech(samples: int, seed: int) -> torch.Tensor:
    """A tone in noise (samples,), float64."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples, dtype=torch.float64) / 16000
    tone = 0.3 * torch.sin(2 * torch.pi * (150 + 37 * (seed % 11)) * time)
    return tone + 0.05 * torch.randn(samples, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="session")
def make_batch() -> Callable[[Sequence[Sequence[int]]], DialogueBatch]:
    """Collate dialogues given as the lengths (samples) of their turns; turn j of dialogue i is the same every time."""

    def make(lengths: Sequence[Sequence[int]], order: Sequence[int] | None = None) -> DialogueBatch:
        dialogues, waveforms = [], []
        for index in range(len(lengths)) if order is None else order:
            roles = [SPEAKER if place % 2 == 0 else LISTENER for place in range(len(lengths[index]))]
            words = [f"{SENTENCES[(index + place) % 4]} {'so ' * (index % 3)}" for place in range(len(roles))]
            history = tuple(Turn(role, text) for role, text in zip(roles, words))
            reply = Turn(LISTENER, SENTENCES[index % 4][: 8 + 5 * (index % 4)])
            dialogues.append(Dialogue(str(index), history, reply))
            waveforms.append([speech(count, 100 * index + place) for place, count in enumerate(lengths[index])])
        return DialogueBatch.of(dialogues, waveforms)

    return make
