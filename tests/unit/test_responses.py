"""Folders of answers: their names are apart and stay inside, and no half file is left."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from es4r_toolkit.data.responses import folder_names, write_response
from es4r_toolkit.errors import DialogueError


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.text(max_size=120) | st.sampled_from(["..", "../a", "/a", "_a", "A", "a", "a_2"]), unique=True))
def test_folder_names_are_apart_and_stay_inside(tmp_path_factory, ids):
    root = tmp_path_factory.getbasetemp()
    names = folder_names(ids)
    assert list(names) == ids
    assert len({name.lower() for name in names.values()}) == len(ids)
    for name in names.values():
        assert (root / name).resolve().parent == root.resolve()
        assert name.isascii()
        assert len(name) < 100


def test_an_answer_with_nan_is_refused_and_leaves_no_half_file(tmp_path):
    import torch

    with pytest.raises(DialogueError, match=r"response\.json"):
        write_response(tmp_path / "a", {"energy": float("nan")}, torch.zeros(10), 16000)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["response.wav"]
