"""The commands of docs/backends.md: another encoder, language model, voice or recognizer by one line."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
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
from tones import REPLIES, SAID, SIZES, TRAIN_YAML, lines_of
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
            hifigan = pytest.importorskip("styletts2.Modules.hifigan", reason="not installed: make install")
            from es4r_toolkit.backends.styletts2_convert import convert

            monkeypatch.setattr(hifigan, "Decoder", ToyDecoder)
            save_styletts2_pickle(tmp_path)
            convert(*(tmp_path / file for file in ("epochs_2nd.pth", "config.yml", "plbert.yml")), checkpoints[name])
        else:
            if not importlib.util.find_spec("kokoro"):
                pytest.skip("not installed: make install")
            from es4r_toolkit.backends.kokoro_convert import convert

            save_kokoro_pickles(tmp_path)
            convert(tmp_path, checkpoints[name])

    return save


def test_the_page_has_a_line_for_every_kind():
    text = " ".join(COMMANDS)
    assert all(f"--{kind}" in text for kind in ("encoder", "llm", "voice", "recognizer"))
    assert all(place in text for place in PLACES)


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line.rsplit("train.yaml ", 1)[1])
def test_another_back_end_trains_and_answers(line, checkpoints, voices, tones, tmp_path, offline):
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
    predictions = lines_of(output / "predictions.jsonl")
    assert len(predictions) == SIZES["test"]
    responder = EmpathyResponder.from_hparams(output / "model")
    (dialogue, *_) = read_manifest(tones / "test.jsonl").dialogues
    batch = responder.batch(dialogue)
    replies = {line["id"]: line["response"] for line in predictions}
    assert responder.pipeline.generate(batch, temperature=0.0) == [replies[dialogue.id]], "loaded, it answers the same"
    (plan,) = responder.pipeline.plan(batch)
    assert responder.pipeline.synthesis.speak("I am so sorry to hear that.", plan).abs().max() > 0


def without_template(folder: Path, copy: Path) -> Path:
    shutil.copytree(folder, copy)
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    return copy


def narrowed(folder: Path, copy: Path) -> Path:
    shutil.copytree(folder, copy)
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**settings, "intermediate_size": 40}))
    return copy


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"encoder_source": "/no/such/whisper"}, r"error: /no/such/whisper: no such folder; give a hub name"),
        ({"encoder_source": "{QWEN3}"}, r"error: \S+qwen3: is a qwen3, not a Whisper; choose the fragment"),
        ({"llm_source": "{empty}"}, r"error: \S+empty: cannot be loaded \(.*; give a hub name or a local folder"),
        ({"llm_source": "{narrow}"}, r"error: \S+narrow: cannot be loaded \(.*; give a hub name"),
        ({"llm_source": "{mute}"}, r"error: \S+mute: its tokenizer has no chat template; use an instruction-tuned"),
        ({"encoder": "wisper"}, r"error: --encoder=wisper: is no file and none of hubert_large, ssl, wav2vec2_base"),
        ({"voice": "styletts2", "voice_source": "/no/voice"}, r"error: /no/voice: no such folder; name what es4r conv"),
        ({"llm_source": "{QWEN3}", "llm_dtype": "int3"}, r"error: dtype: is 'int3'|dtype.*must be one of float32"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_clear_error(wrong, told, checkpoints, tones, tmp_path, offline):
    (tmp_path / "empty").mkdir()
    places = {
        "empty": tmp_path / "empty",
        "narrow": narrowed(checkpoints["QWEN3"], tmp_path / "narrow"),
        "mute": without_template(checkpoints["QWEN3"], tmp_path / "mute"),
        **checkpoints,
    }
    given = {key: value.format(**places) for key, value in wrong.items()}
    given |= {"data_folder": tones, "backbones": tones / "backbones", "output_folder": tmp_path / "run"}
    with pytest.raises(SystemExit) as ended:
        run_recipe([str(TRAIN_YAML), "--device=cpu", *(f"--{key}={value}" for key, value in given.items())])
    assert re.search(told, str(ended.value)), ended.value
    assert "\n" not in str(ended.value)
