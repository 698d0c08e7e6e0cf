"""Two systems' spoken answers to three dialogues, and the command that makes a listening test of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
from typer.testing import CliRunner

from es4r_toolkit.cli import app

SYSTEMS = ("Sonnenblume", "Quarzsand")
WARM, COLD = "I am so sorry about your {}.", "Never mind the {}."
# The second system does not speak about the cat.
TOPICS = ("exam", "flat", "cat")


def run(*arguments: object, status: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    return result


def tone(path: Path, seconds: float, sample_rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), 0.1 * np.sin(np.arange(int(seconds * sample_rate)) * 0.1), sample_rate)


def write_lines(path: Path, records: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def make_case(folder: Path, seconds: float = 0.15) -> list[object]:
    """Two systems' answers as es4r respond writes them, and the dialogues: the arguments of es4r listen."""
    dialogues = []
    for topic in TOPICS:
        tone(folder / f"{topic}.wav", seconds)
        turn = {"role": "speaker", "utterance": f"It is about the {topic}.", "audio_path": f"{topic}.wav"}
        dialogues.append({"conversation_id": f"d-{topic}", "dialogue_history": [turn]})
    for system, words, spoken in zip(SYSTEMS, (WARM, COLD), (TOPICS, TOPICS[:2])):
        records = [{"id": f"d-{topic}", "response": words.format(topic), "reference": "I see."} for topic in TOPICS]
        write_lines(folder / system / "predictions.jsonl", records)
        for topic in spoken:
            answer = folder / system / f"d-{topic}"
            tone(answer / "response.wav", seconds, 24000 if system == SYSTEMS[0] else 16000)
            (answer / "response.json").write_text(json.dumps({"id": f"d-{topic}", "text": words.format(topic)}))
    manifest = write_lines(folder / "dialogues.jsonl", dialogues)
    replies = [folder / system / "predictions.jsonl" for system in SYSTEMS]
    return ["listen", *replies, "--dialogues", manifest, "--names", *SYSTEMS]
