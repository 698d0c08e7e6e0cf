"""A corpus of tones in place of speech, and a fragment of a language model: a recipe trains on it in seconds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import save_file

from es4r_toolkit.backends.building import build_qwen3, build_whisper, train_tokenizer
from es4r_toolkit.lobes import MelDownsampler

TRAIN_YAML = Path(__file__).parents[2] / "recipes" / "AffectProbe" / "hparams" / "train.yaml"
MELS, WIDTH, HEADS = 16, 32, 4
SAID = ["I have to tell you about the exam.", "What happened then?", "It went like this."]
REPLIES = {"low": "I am sorry to hear it.", "high": "That is wonderful news."}
SIZES = {"train": 6, "valid": 3, "test": 2}
EPOCHS, BATCH = 2, 2
STEPS = math.ceil(SIZES["train"] / BATCH) * EPOCHS

# Without dropout, so that runs can be compared.
LLM = """
source: !PLACEHOLDER
model: !new:es4r_toolkit.backends.causal_lm.CausalLM
    source: !ref <source>
    lora: {rank: 2, alpha: 4, dropout: 0.0}
hidden_dim: !ref <model.hidden_dim>
num_heads: !ref <model.num_heads>
"""


def tone(path: Path, hertz: float, seconds: float) -> None:
    time = np.arange(int(16000 * seconds)) / 16000
    soundfile.write(str(path), 0.3 * np.sin(2 * np.pi * hertz * time), 16000)


def write_split(folder: Path, split: str, size: int) -> None:
    lines = []
    for index in range(size):
        mood = list(REPLIES)[index % 2]
        history = []
        for place in range(1 + 2 * (index % 2)):
            name = f"{split}_{index}_{place}.wav"
            tone(folder / name, {"low": 120, "high": 400}[mood] + 9 * place + index, 0.2 + 0.05 * (index % 3))
            role = "listener" if place % 2 else "speaker"
            history.append({"index": place, "role": role, "utterance": SAID[place], "audio_path": name})
        response = {"index": len(history), "role": "listener", "utterance": REPLIES[mood]}
        entry = {"conversation_id": f"{split}-{index}", "dialogue_history": history, "response": response}
        lines.append(json.dumps({**entry, "speaker_emotion": mood, "slots": {"mood": mood}}))
    (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def write_corpus(folder: Path) -> None:
    """A corpus of tones, backbones and a fragment of the language model."""
    for split, size in SIZES.items():
        write_split(folder, split, size)
    (folder / "slots.json").write_text(json.dumps({"mood": {mood: [text] for mood, text in REPLIES.items()}}))
    (folder / "llm.yaml").write_text(LLM)
    torch.manual_seed(0)
    build_whisper(folder / "backbones" / "encoder", WIDTH, layers=1, heads=HEADS, n_mels=MELS, positions=100)
    front = MelDownsampler(MELS).state_dict()
    weights = {f"understanding.downsampler.{name}": weight for name, weight in front.items()}
    save_file(weights, folder / "backbones" / "downsampler.safetensors")
    tokenizer = train_tokenizer([*SAID, *REPLIES.values()] * 20, vocab_size=340)
    build_qwen3(folder / "backbones" / "llm", tokenizer, WIDTH, layers=1, heads=HEADS, intermediate_size=48)


def command_of(folder: Path, output: Path, **more: object) -> list[str]:
    """The command line of a run on that corpus, after the script's name."""
    options = {
        "data_folder": folder,
        "backbones": folder / "backbones",
        "llm": folder / "llm.yaml",
        "output_folder": output,
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "lr": 0.01,
        "kl_weight": 1.0,
        **more,
    }
    flags = ["--device=cpu", "--noprogressbar", "--ckpt_interval_minutes=0", "--ckpt_interval_steps=1"]
    return [str(TRAIN_YAML), *flags, *(f"--{key}={value}" for key, value in options.items())]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
