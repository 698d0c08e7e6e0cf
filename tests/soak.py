"""How much the tests of what nobody can count out do: a little in every run, much where ES4R_SOAK is set."""

from __future__ import annotations

import os

SOAK = bool(os.environ.get("ES4R_SOAK"))


def examples(few: int) -> int:
    """How many examples a property is held against."""
    return few * 100 if SOAK else few
