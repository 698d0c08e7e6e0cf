"""The commands of docs/backends.md: another encoder, language model, voice or recognizer by one line."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from published import (
    ToyDecoder,
    save_kokoro_pickles,
    save_self_supervised,
    save_styletts2_pickle,
    save_whisper,
)
from tones import REPLIES, SAID, SIZES, lines_of
from transformers import LlamaConfig, LlamaForCausalLM

from es4r_toolkit.backends.building import build_qwen3, train_tokenizer
from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.inference import EmpathyResponder
from es4r_toolkit.training import run_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
COMMANDS = re.search(r"<!-- a test runs what follows -->\n```\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
PLACES = ("WHISPER", "WAVLM", "QWEN3", "LLAMA", "STYLETTS2", "KOKORO")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """Small checkpoints in the published formats, and where those of voices go."""
    folder = tmp_path_factory.mktemp("checkpoints")
    places = {name: folder / name.lower() for name in PLACES}
    save_whisper(places["WHISPER"], n_mels=24)
    save_self_supervised(places["WAVLM"], "wavlm base")
    tokenizer = train_tokenizer([*SAID, *REPLIES.values()] * 20, vocab_size=330)
    torch.manual_seed(0)
    build_qwen3(places["QWEN3"], tokenizer, hidden_size=48, layers=1, heads=4, intermediate_size=64)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    marks = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **marks)).save_pretrained(places["LLAMA"])
    tokenizer.save_pretrained(places["LLAMA"])
    return places


@pytest.fixture
def voices(checkpoints, tmp_path, monkeypatch) -> Callable[[str], None]:
    """Convert a made-up checkpoint of a voice; skips where its package is not installed."""

    def save(name: str) -> None:
        pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed")
        if name == "STYLETTS2":
            hifigan = pytest.importorskip("styletts2.Modules.hifigan", reason="not installed: make styletts2")
            from es4r_toolkit.backends.styletts2_convert import convert

            monkeypatch.setattr(hifigan, "Decoder", ToyDecoder)
            save_styletts2_pickle(tmp_path)
            convert(*(tmp_path / file for file in ("epochs_2nd.pth", "config.yml", "plbert.yml")), checkpoints[name])
        else:
            if not importlib.util.find_spec("kokoro"):
                pytest.skip("not installed: make kokoro")
            from es4r_toolkit.backends.kokoro_convert import convert

            save_kokoro_pickles(tmp_path)
            convert(tmp_path, checkpoints[name])

    return save


def test_the_page_has_a_line_for_every_kind():
    text = " ".join(COMMANDS)
    assert all(f"--{kind}" in text for kind in ("encoder", "llm", "voice", "recognizer"))
    assert all(place in text for place in PLACES)


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line.rsplit("train.yaml ", 1)[1])
def test_another_back_end_trains_and_answers(line, checkpoints, voices, tones, tmp_path):
    for name in ("STYLETTS2", "KOKORO"):
        if name in line:
            voices(name)
    for name, folder in checkpoints.items():
        line = line.replace(f"={name}", f"={folder}")
    _, script, *arguments = shlex.split(line)
    assert (ROOT / script).is_file()
    output = tmp_path / "run"
    small = {
        "data_folder": tones,
        "backbones": tones / "backbones",
        "output_folder": output,
        "epochs": 1,
        "batch_size": 3,
        "max_new_tokens": 6,
    }
    run_recipe([*arguments, *(f"--{key}={value}" for key, value in small.items()), "--device=cpu", "--noprogressbar"])
    assert len(lines_of(output / "predictions.jsonl")) == SIZES["test"]
    responder = EmpathyResponder.from_hparams(output / "model")
    (dialogue, *_) = read_manifest(tones / "test.jsonl").dialogues
    batch = responder.batch(dialogue)
    assert len(responder.pipeline.generate(batch)) == 1
    (plan,) = responder.pipeline.plan(batch)
    assert responder.pipeline.synthesis.speak("I am so sorry to hear that.", plan).abs().max() > 0
