"""Four hundred bad and odd files: each gives its named error or a correct answer, in bounded time and memory.

What they are stands in tests/bad_sounds.py and tests/bad_dialogues.py. `ES4R_SOAK=1` has the shipped model answer all
that can be answered, not a few of each kind.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from bad_dialogues import GOOD, dialogue, lines, manifests
from bad_sounds import WAV, Heard, Sound, make_sounds, sounds
from soak import SOAK
from typer.testing import CliRunner

from es4r_toolkit.cli import app
from es4r_toolkit.data import audio
from es4r_toolkit.data.cleaning import write_clean
from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.errors import AudioError, DialogueError

# A busy machine takes a hundred times what a quiet one does: most take a millisecond.
LIMIT = 20
SOUNDS, LINES, MANIFESTS = list(sounds()), list(lines()), list(manifests())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """All recordings, and a manifest with every line and a dialogue for every recording."""
    folder = tmp_path_factory.mktemp("corpus")
    make_sounds(folder)
    spoken = [dialogue(f"sound {place}", audio_path=sound.name) for place, sound in enumerate(SOUNDS)]
    rows = [line.content for line in LINES] + spoken
    (folder / "corpus.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8", newline="\n")
    return folder


def shown(row: tuple) -> str:
    return ascii(row[0])[1:40]


def test_there_are_hundreds_of_them_and_none_twice():
    for table, fewest in ((SOUNDS, 200), (LINES, 150), (MANIFESTS, 50)):
        assert len({row.name for row in table}) == len(table) >= fewest


@pytest.mark.timeout(10 * LIMIT, method="thread")
@pytest.mark.parametrize("sound", SOUNDS, ids=shown)
def test_a_recording_gives_its_named_error_or_what_is_on_it(folder, sound: Sound):
    path = folder / sound.name
    start = time.monotonic()
    if isinstance(sound.expected, Heard):
        samples, rate = audio.decode(path)
        assert len(samples) / rate == pytest.approx(sound.expected.seconds, rel=0.1)
        assert np.sqrt(np.square(samples, dtype=np.float64).mean()) == pytest.approx(sound.expected.level, 0.05, 1e-4)
        waveform = audio.load(path, 16000)
        assert waveform.isfinite().all()
        assert len(waveform) == -(-len(samples) * 16000 // rate)
    else:
        with pytest.raises(AudioError) as caught:
            audio.load(path, 16000)
        error = caught.value
        assert sound.expected in f"{error.problem}; {error.mend}"
        assert error.mend
        assert str(path) == error.item
    assert time.monotonic() - start < LIMIT


def test_every_line_is_good_or_said_to_be_what_it_is(folder):
    start = time.monotonic()
    report = read_manifest(folder / "corpus.jsonl", decode=True)
    assert time.monotonic() - start < 3 * LIMIT
    bad = {rejection.line: rejection for rejection in report.rejected}
    found = {
        line.name: f"{bad[place].field} {bad[place].problem}" if place in bad else GOOD
        for place, line in enumerate(LINES, start=1)
    }
    assert {line.name: found[line.name] for line in LINES if line.expected not in found[line.name]} == {}
    assert all(rejection.mend and len(rejection.problem) < 500 for rejection in report.rejected)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=shown)
def test_a_manifest_is_counted_or_refused_by_name(tmp_path, manifest):
    (tmp_path / "good.wav").write_bytes(WAV)
    path = tmp_path / manifest.name
    path.write_bytes(manifest.content)
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    if isinstance(manifest.expected, str):
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"error: {path}")
        assert manifest.expected in line
    else:
        good, rejected = manifest.expected
        assert result.stdout.splitlines()[-1] == f"{good} good, {rejected} rejected"
        assert result.exit_code == (1 if rejected else 0)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "loop", "device", "huge", "long"])
def test_a_manifest_that_is_no_file_is_refused_by_name(tmp_path, kind):
    path = tmp_path / f"{'long' * 100 if kind == 'long' else kind}.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        path.touch()
        os.truncate(path, 1 << 40)
    elif kind != "long":
        path.symlink_to({"link": "nowhere", "loop": path.name, "device": "/dev/zero"}[kind])
    with pytest.raises(DialogueError) as caught:
        read_manifest(path)
    assert caught.value.item == str(path)
    assert caught.value.mend


@pytest.mark.parametrize("closed", ["the file", "its folder"])
def test_what_may_not_be_read_is_named(closed):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        inner = folder / "inner"
        inner.mkdir()
        (inner / "a.wav").write_bytes(WAV)
        (inner if closed == "its folder" else inner / "a.wav").chmod(0)
        manifest = folder / "manifest.jsonl"
        manifest.write_text(dialogue("1", audio_path="inner/a.wav"))
        # Nothing is closed to the administrator.
        administrator = os.geteuid() == 0
        try:
            if administrator:
                os.seteuid(65534)
            (rejection,) = read_manifest(manifest).rejected
        finally:
            if administrator:
                os.seteuid(0)
            inner.chmod(0o755)
    assert "inner/a.wav" in rejection.problem
    assert rejection.mend


def test_a_name_that_is_not_unicode_is_read(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    path.write_bytes(WAV)
    assert len(audio.load(path, 16000)) == 8000


def test_validate_counts_every_dialogue_once_in_bounded_memory(folder, tmp_path):
    status, output, megabytes = run_bounded(tmp_path, ["validate", str(folder / "corpus.jsonl"), "--decode", "--json"])
    assert status == 1
    assert megabytes < 300
    found = json.loads(output)
    good = sum(line.expected == GOOD for line in LINES) + sum(isinstance(one.expected, Heard) for one in SOUNDS)
    assert len(found["good"]) == len(set(found["good"])) == good
    assert len(found["good"]) + len(found["rejected"]) == len(LINES) + len(SOUNDS)
    assert len({rejection["line"] for rejection in found["rejected"]}) == len(found["rejected"])


def test_good_and_bad_are_written_apart_none_lost(folder, tmp_path):
    report = read_manifest(folder / "corpus.jsonl", decode=True)
    write_clean(tmp_path, "corpus", folder / "corpus.jsonl", report)
    for name, count in (("clean", len(report.dialogues)), ("rejects", len(report.rejected))):
        written = (tmp_path / f"corpus.{name}.jsonl").read_text(encoding="utf-8").split("\n")
        assert len(written) == count + 1
    clean = read_manifest(tmp_path / "corpus.clean.jsonl", decode=True)
    assert clean.rejected == []
    assert [one.id for one in clean.dialogues] == [one.id for one in report.dialogues]
    said = [[turn.text for turn in one.history] for one in report.dialogues]
    assert [[turn.text for turn in one.history] for one in clean.dialogues] == said


def test_the_shipped_model_answers_or_names_what_it_cannot(folder, tmp_path):
    pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed")
    every = (folder / "corpus.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    too_long = {"a hundred thousand words", "a word of a hundred thousand letters", "ten thousand emoji"}
    step = 1 if SOAK else 25
    chosen = [
        row for place, row in enumerate(every) if place % step == 0 or any(f'"{name}"' in row for name in too_long)
    ]
    manifest = folder / "chosen.jsonl"
    manifest.write_text("".join(f"{row}\n" for row in chosen), encoding="utf-8", newline="\n")
    valid = {one.id for one in read_manifest(manifest, decode=True, need_text=False).dialogues}
    status, output, megabytes = run_bounded(
        tmp_path, ["respond", str(manifest), "--json", "--output", str(tmp_path / "answers")]
    )
    assert status == 1
    found = json.loads(output)
    assert megabytes < 2000
    assert len(found["answered"]) + len(found["rejected"]) == len(chosen)
    unanswered = {rejection["item"] for rejection in found["rejected"] if rejection["field"] == "answer"}
    assert unanswered == too_long & valid
    assert {answer["id"] for answer in found["answered"]} == valid - too_long
    for answer in found["answered"]:
        assert answer["text"]
        assert Path(answer["folder"]).parent == tmp_path / "answers"
        spoken, _ = soundfile.read(Path(answer["folder"]) / "response.wav")
        assert np.isfinite(spoken).all()
        assert len(spoken) > 1000


# Linux counts the most memory that a process held since it began its program.
WATCHED = """
import atexit, pathlib, sys
status, kept = pathlib.Path("/proc/self/status"), pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: kept.write_text(status.read_text() if status.is_file() else "VmHWM: 0 kB"))
from es4r_toolkit.cli import main
main()
"""


def run_bounded(folder: Path, arguments: list[str]) -> tuple[int, str, float]:
    """Run es4r in a process of its own; give its exit status, what it printed, and the most memory it held (MB)."""
    limit = 1800 if SOAK else 300
    command = [sys.executable, "-c", WATCHED, str(folder / "status"), *arguments]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=limit, check=False)
    assert b"Traceback" not in done.stderr, done.stderr[-2000:]
    (most,) = re.findall(r"VmHWM:\s*(\d+) kB", (folder / "status").read_text())
    return done.returncode, done.stdout.decode(), int(most) / 1024
