"""A short soak: nothing is left behind, and the first answer is the last."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import soak_responder

pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'")


def test_a_responder_leaves_nothing_behind_and_keeps_its_word():
    """Memory is looked at over thousands alone: `make soak`."""
    found = soak_responder.soak(dialogues=16, warm_up=8, progress=False)
    assert found["answered"] + found["broken_off"] == 16
    assert found["broken_off"] == 4
    assert [fault for fault in found["wrong"] if not fault.startswith("memory")] == []


def test_what_leaks_is_named():
    start = {"memory": 1000, "files": 5, "threads": 1, "children": 1}
    response = type("Told", (), {"text": "a", "plan": None})
    course = [start, {**start, "memory": 1040, "files": 6}]
    faults = soak_responder._wrong(course, response, response)
    assert next(faults) == "memory grew from 1000 to 1040 bytes"
    assert next(faults) == "files grew from 5 to 6"
