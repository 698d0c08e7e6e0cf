"""Fixtures of the integration tests."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from judge_server import JudgeServer
from tones import command_of, write_corpus

from es4r_toolkit.inference import EmpathyResponder
from es4r_toolkit.training import run_recipe

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


@pytest.fixture(scope="session")
def tones(tmp_path_factory) -> Path:
    """A corpus of tones, backbones and a fragment of the language model."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="session")
def command(tones) -> Callable[..., list[str]]:
    """The command line of a run, after the script's name."""

    return partial(command_of, tones)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, command) -> tuple[Path, dict[str, float]]:
    """The plus preset, trained without interruption."""
    output, threads = tmp_path_factory.mktemp("trained"), torch.get_num_threads()
    # As the run that is killed below: more threads round otherwise, and training spreads that.
    torch.set_num_threads(1)
    try:
        return output, run_recipe(command(output))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def server(monkeypatch) -> Iterator[JudgeServer]:
    """A chat completions server, and no key in the environment."""
    monkeypatch.delenv("ES4R_JUDGE_KEY", raising=False)
    with JudgeServer().running() as running:
        yield running


@pytest.fixture(scope="module")
def responder() -> EmpathyResponder:
    """The shipped model."""
    return EmpathyResponder.from_hparams()
