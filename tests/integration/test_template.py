"""A newcomer's corpus, with all that goes wrong in one made by hand, by the template's README alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tones import lines_of

from es4r_toolkit.data.manifest import read_manifest

ROOT = Path(__file__).parents[2]
README = (ROOT / "templates" / "dialogue" / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```\n(.*?)```", README.replace("\\\n", " "), re.DOTALL)
    for line in block.splitlines()
    if line.split()[0] in ("cp", "es4r", "python")
]
SAID = ["I failed my exam.", "Oh no. What happened?", "I was too tired to think.", "That must have been hard."]
GOOD = 12
HALF = "Gespräch 16_1"  # all that is left of its conversation
BAD = {
    "Gespräch 12_1": "response.audio_path 'wav/Käthe_Müßig_12_1.wav' declares 19200 bytes of samples and holds 8956",
    "Gespräch 12_3": "dialogue_history[1].audio_path 'wav/Käthe_Müßig_12_1.wav' declares 19200 bytes of samples and "
    "holds 8956",
    "Gespräch 13_1": "dialogue_history[0].audio_path 'wav/Käthe_Müßig_13_0.wav' does not exist",
    "Gespräch 13_3": "dialogue_history[0].audio_path 'wav/Käthe_Müßig_13_0.wav' does not exist",
    "Gespräch 14": "turn 2 stands in line 60 too",
    "Gespräch 15": "dialogue_history[1].role is 'agent'",
    "Gespräch 16_3": "response.audio_path 'wav/Käthe_Müßig_16_3.wav' does not exist",
}
HEADER = "dialogue_id,turn,role,text,wav,speaker_id"


def tone(path: Path, hertz: float, sample_rate: int = 16000, channels: int = 1) -> None:
    time = np.arange(int(0.6 * sample_rate)) / sample_rate
    samples = 0.3 * np.sin(2 * np.pi * hertz * time)
    soundfile.write(path, np.stack([samples] * channels, axis=1), sample_rate)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project's root with the newcomer's folder in it."""
    pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed")
    pytest.importorskip("pocketsphinx", reason="the asr extra is not installed")
    root = tmp_path_factory.mktemp("project")
    (root / "recipes").mkdir()
    for name in ("recipes/AffectProbe", "recipes/_shared", "templates", "es4r_toolkit"):
        (root / name).symlink_to(ROOT / name)
    folder = root / "calls"
    (folder / "wav").mkdir(parents=True)
    rows = [HEADER]
    for number in range(GOOD + 5):
        name = f"Gespräch {number}"
        for turn, (role, text) in enumerate(zip(["speaker", "listener"] * 2, SAID)):
            wav = f"wav/Käthe_Müßig_{number}_{turn}.wav"
            tone(folder / wav, 110 + 13 * number + 40 * turn)
            # A comma in a text wants quotes, as spreadsheets write them.
            rows.append(f'{name},{turn},{role},"{text.replace("Oh no. ", "Oh, no. ")}",{wav},sprecher{number % 5}')
    tone(folder / "wav/Käthe_Müßig_0_0.wav", 150, sample_rate=44100, channels=2)
    whole = folder / f"wav/Käthe_Müßig_{GOOD}_1.wav"
    whole.write_bytes(whole.read_bytes()[:9000])  # cut short
    (folder / f"wav/Käthe_Müßig_{GOOD + 1}_0.wav").unlink()  # missing
    (folder / f"wav/Käthe_Müßig_{GOOD + 4}_3.wav").unlink()  # missing, of one of two replies
    rows.append(f'Gespräch {GOOD + 2},2,speaker,"Once more.",wav/Käthe_Müßig_0_0.wav,sprecher0')  # a number twice
    rows = [row.replace(f"Gespräch {GOOD + 3},1,listener", f"Gespräch {GOOD + 3},1,agent") for row in rows]
    rows = [row.replace('"I failed my exam."', "") if row.startswith("Gespräch 1,") else row for row in rows]
    (folder / "calls.csv").write_bytes("\r\n".join([*rows, ""]).encode("utf-8-sig"))
    return root


def run(project: Path, line: str) -> subprocess.CompletedProcess:
    program, *arguments = line.split()
    if program == "cp":
        shutil.copytree(ROOT / arguments[1], project / arguments[2])
        return subprocess.CompletedProcess(line, 0, "", "")
    command = [sys.executable, *(["-m", "es4r_toolkit.cli"] if program == "es4r" else []), *arguments]
    calm = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=project, env=calm, capture_output=True, text=True, timeout=500)


def test_the_readme_alone_leads_from_a_folder_to_a_spoken_reply(project):
    copy, validate, train, real, respond = COMMANDS
    assert [line.split()[0] for line in COMMANDS] == ["cp", "es4r", "python", "python", "es4r"]
    run(project, copy)

    looked = run(project, validate)
    assert looked.returncode == 1, looked.stderr
    # Each conversation has two replies, and so gives two dialogues.
    assert f"{2 * GOOD + 1} good, {len(BAD)} rejected" in looked.stdout, looked.stdout
    rejects = lines_of(project / "results/Mine/checked/calls.rejects.jsonl")
    assert {line["item"]: f"{line['field']} {line['problem']}" for line in rejects} == BAD
    assert (project / "results/Mine/checked/report.html").is_file()
    clean = read_manifest(project / "results/Mine/checked/calls.clean.jsonl", need_text=False)
    names = {dialogue.id for dialogue in clean.dialogues}
    assert HALF in names

    trained = run(project, train)
    assert trained.returncode == 0, trained.stderr[-3000:]
    manifests = project / "results/Mine/manifests"
    left_out = lines_of(manifests / "rejects.jsonl")
    assert {re.search(r"\((.*)\)", line["place"])[1] for line in left_out} == set(BAD)
    assert all(line["problem"] and line["mend"] for line in left_out)
    kept = {split: read_manifest(manifests / f"{split}.jsonl", need_text=False) for split in ("train", "valid", "test")}
    ids = [dialogue.id for report in kept.values() for dialogue in report.dialogues]
    assert sorted(ids) == sorted(names), "nothing else is lost, and nothing is renamed"
    conversations = [{line["conversation_id"] for line in lines_of(manifests / f"{split}.jsonl")} for split in kept]
    assert sum(map(len, conversations)) == len(set().union(*conversations)) == GOOD + 1
    (heard,) = lines_of(project / "results/Mine/transcripts.jsonl")
    assert heard["audio"].endswith("Käthe_Müßig_1_0.wav"), "the one turn without a text"

    answered = run(project, respond)
    assert answered.returncode == 1, "the bad ones are named here too"
    answers = [path.parent.name for path in (project / "results/Mine/answers").glob("*/response.wav")]
    # Whom nobody answered can be answered too: the response of a dialogue is not needed, but one that is there is read.
    assert len(answers) == 2 * GOOD + 1
    spoken, _ = soundfile.read(project / "results/Mine/answers" / answers[0] / "response.wav")
    assert np.abs(spoken).max() > 0.01
    reply = json.loads((project / "results/Mine/answers" / answers[0] / "response.json").read_text())
    assert reply["text"]

    planned = run(project, f"{real} --dry_run".replace("--device=cuda:0 --precision=bf16", ""))
    assert planned.returncode == 0, planned.stderr
    assert "Qwen/Qwen3-0.6B" in planned.stdout
