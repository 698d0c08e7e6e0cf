"""Fixtures of the integration tests."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "AffectProbe"
# In the order in which each imports those before it.
SCRIPTS = ("clips", "recorded", "corpus", "prepare", "pretrain", "twins", "study_tables", "study")


@pytest.fixture(scope="session")
def affectprobe() -> Callable[[str], ModuleType]:
    """Give the scripts of recipes/AffectProbe, which import one another by their bare names."""
    loaded: dict[str, ModuleType] = {}
    # The bare names stand only for as long as the scripts are loaded.
    with pytest.MonkeyPatch.context() as patch:
        for name in SCRIPTS:
            spec = importlib.util.spec_from_file_location(f"affectprobe_{name}", RECIPE / f"{name}.py")
            loaded[name] = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = loaded[name]  # where dataclasses look for it
            patch.setitem(sys.modules, name, loaded[name])
            spec.loader.exec_module(loaded[name])
    return loaded.__getitem__


@pytest.fixture(scope="session")
def corpus(affectprobe) -> ModuleType:
    """recipes/AffectProbe/corpus.py."""
    return affectprobe("corpus")
