"""docs/inference.md: each of its examples runs as it stands."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest

from es4r_toolkit.data.manifest import read_manifest

pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'")
pytest.importorskip("pocketsphinx", reason="the asr extra is not installed: pip install 'es4r-toolkit[asr]'")
PAGE = (Path(__file__).parents[2] / "docs" / "inference.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"## ([^\n]*)\n\n```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def folder(demo_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(demo_folder, folder, dirs_exist_ok=True)
    first, second = read_manifest(demo_folder / "dialogues.jsonl").dialogues[0].history[0:3:2]
    shutil.copy(first.audio, folder / "turn1.wav")
    shutil.copy(second.audio, folder / "turn2.wav")
    return folder


@pytest.fixture(scope="module")
def printed(folder) -> dict[str, str]:
    """What each example prints, run in the folder of the recordings as a script of its own would be."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for title, example in EXAMPLES:
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(example, title, "exec"), {"__name__": "__main__"})
            found[title] = output.getvalue()
    return found


def test_the_page_has_an_example_of_every_way_of_asking():
    assert [title for title, _ in EXAMPLES] == [
        "A whole answer",
        "Many at once",
        "A reply as it comes about",
        "A conversation",
    ]


def test_a_whole_answer_is_told_and_saved(printed, folder):
    assert printed["A whole answer"].splitlines()[1].startswith(("comfort", "neutral", "encourage"))
    assert (folder / "reply.wav").stat().st_size > 50_000


def test_many_are_answered_each_under_its_id(printed):
    assert len(printed["Many at once"].splitlines()) == 3


def test_a_stream_tells_words_and_sounds_as_they_come(printed):
    shown = printed["A reply as it comes about"]
    assert "will speak to" in shown
    assert "s to play]" in shown
    assert re.search(r"first sound after 0\.\d+ s", shown)


def test_a_conversation_goes_on_and_can_be_interrupted(printed):
    turns = printed["A conversation"].splitlines()[-1]
    assert turns.count("('speaker'") == 2
    assert turns.count("('listener'") == 2
