"""Names and paths that strangers write lead nowhere else: recordings where that is asked for, answers always."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from es4r_toolkit.data.audio import save
from es4r_toolkit.data.manifest import ManifestReport, read_manifest
from es4r_toolkit.data.responses import folder_names
from es4r_toolkit.data.tables import TableOptions


@pytest.fixture
def folder(tmp_path) -> Path:
    """A manifest's folder with a recording in it, and one outside it."""
    folder = tmp_path / "data"
    (folder / "wav").mkdir(parents=True)
    for path in (folder / "wav" / "a.wav", tmp_path / "secret.wav"):
        save(path, torch.zeros(1600), 16000)
    return folder


def read(folder: Path, audio_path: str, **options: object) -> ManifestReport:
    history = [{"role": "speaker", "utterance": "I failed.", "audio_path": audio_path}]
    (folder / "one.json").write_text(json.dumps({"conversation_id": "7", "dialogue_history": history}))
    return read_manifest(folder / "one.json", **options)


OUTSIDE = ["../secret.wav", "wav/../../secret.wav", "{top}/secret.wav", "link.wav", "linked/secret.wav", "/dev/zero"]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("options", [{}, {"check_audio": False}, {"decode": True}, {"workers": 2}], ids=str)
def test_a_confined_manifest_names_recordings_of_its_folder_alone(folder, path, options):
    (folder / "link.wav").symlink_to(folder.parent / "secret.wav")
    (folder / "linked").symlink_to(folder.parent)
    report = read(folder, path.format(top=folder.parent), confined=True, **options)
    assert not report.dialogues
    assert "leads out of the manifest's folder" in report.rejected[0].problem
    # Not even its header was looked at.
    assert not report.recordings


@pytest.mark.parametrize("path", ["wav/a.wav", "./wav/../wav/a.wav", "{folder}/wav/a.wav", "inner.wav"])
def test_within_its_folder_it_may_write_paths_as_it_likes(folder, path):
    (folder / "inner.wav").symlink_to(folder / "wav" / "a.wav")
    assert len(read(folder, path.format(folder=folder), confined=True).dialogues) == 1


def test_a_confined_folder_may_itself_be_a_link(folder):
    (folder.parent / "link").symlink_to(folder)
    assert len(read(folder.parent / "link", "wav/a.wav", confined=True).dialogues) == 1


def test_another_spelling_leads_out_of_nothing(folder):
    """A name is looked for with its accents composed too."""
    (folder / "\u00fc.wav").symlink_to(folder.parent / "secret.wav")
    report = read(folder, "u\u0308.wav", confined=True)
    assert not report.dialogues


@pytest.mark.parametrize("path", ["wav/a\0.wav", "wav/" + "a" * 5000, "wav/\n.wav"])
def test_paths_that_no_file_has_are_named(folder, path):
    assert len(read(folder, path, confined=True).rejected) == 1


def test_a_table_is_confined_too(folder):
    (folder / "one.csv").write_text("dialogue_id,turn,role,text,wav\n1,1,speaker,Hello.,../secret.wav\n")
    report = read_manifest(folder / "one.csv", confined=True, table=TableOptions())
    assert not report.dialogues
    assert report.rejected


def test_a_manifest_of_ones_own_names_recordings_anywhere(folder):
    assert len(read(folder, "../secret.wav").dialogues) == 1


IDS = [
    "../x",
    "..",
    ".",
    "/etc/passwd",
    "a/../../b",
    "C:\\x",
    "~",
    "",
    " ",
    "\0",
    "a\nb",
    "-rf",
    "CON",
    "x" * 999,
    "\u202e",
]


def test_no_name_of_a_dialogue_leads_out_of_the_output_folder(tmp_path):
    names = folder_names([*IDS, *(f"{one}/.." for one in IDS)])
    assert len(set(map(str.lower, names.values()))) == len(names)
    for name in names.values():
        assert os.path.dirname(os.path.realpath(tmp_path / name)) == os.path.realpath(tmp_path)
        (tmp_path / name).mkdir()
