"""es4r judge as tests give it: its input, the command, and what it wrote."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from judge_server import JudgeServer
from typer.testing import CliRunner

from es4r_toolkit.cli import app

# Seconds: long, for what always comes to pass, on however busy a machine.
PATIENCE = 180
KEY = "sk-test-4f1d/9+b=c"
ASPECTS = ("quality", "empathy", "completeness", "fluency")
COMPARED = ("topic", "emotion", "specificity", "action", "empathy")
NO_ANSWERS = {"answers": 0, "tokens_in": 0, "tokens_out": 0, "without_usage": 0}


def write_predictions(folder: Path, replies: dict[str, str], name: str = "predictions.jsonl") -> Path:
    lines = [{"id": key, "response": reply, "reference": f"A good answer to {key}."} for key, reply in replies.items()]
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_dialogues(folder: Path, names: str, **more: str) -> Path:
    entries = []
    for name in names:
        said = [("speaker", f"I am {name}."), ("listener", "Tell me."), ("speaker", f"I lost my job, {name} did.")]
        history = [{"role": role, "utterance": text, **more} for role, text in said]
        entries.append({"conversation_id": name, "dialogue_history": history})
    path = folder / "dialogues.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def judge(folder: Path, server: JudgeServer, *more: object, status: int = 0):
    """The command, on the predictions of a folder."""
    where = ("--endpoint", server.url, "--model", "m", "--output", folder / "out")
    arguments = ["judge", folder / "predictions.jsonl", *where, *more]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    return result


def result_of(folder: Path) -> dict:
    return json.loads((folder / "out" / "judge.json").read_text())


def shown(user: str, tag: str) -> list[object]:
    """What stands between tags of a prompt, line by line."""
    (inside,) = re.findall(f"<{tag}>\n(.*?)\n</{tag}>", user, flags=re.DOTALL)
    return [json.loads(line) for line in inside.split("\n")]


def kept(folder: Path) -> list[str]:
    path = folder / "out" / "judgements.jsonl"
    return path.read_text().splitlines() if path.is_file() else []


def start(folder: Path, server: JudgeServer, *more: str) -> subprocess.Popen:
    where = ["--endpoint", server.url, "--model", "m", "--output", str(folder / "out")]
    script = [sys.executable, "-m", "es4r_toolkit.cli", "judge", str(folder / "predictions.jsonl"), *where, *more]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Where tests run in the background, interrupts are ignored, and so they would be by what they start.
    return subprocess.Popen(script, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options)


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)
