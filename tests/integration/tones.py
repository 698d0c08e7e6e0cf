"""A corpus of tones in place of speech, and a fragment of a language model: a recipe trains on it in seconds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import soundfile

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


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
