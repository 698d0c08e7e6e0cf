"""Every example in a docstring runs, under the names a user imports."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

import es4r_toolkit
import es4r_toolkit.lobes

PACKAGES = (es4r_toolkit, es4r_toolkit.lobes)
MODULES = sorted(
    {
        name
        for package in PACKAGES
        for name in (
            package.__name__,
            *(info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")),
        )
    }
)


def test_the_walk_finds_the_lobes_and_the_stages():
    assert {"es4r_toolkit.lobes.dual_attention", "es4r_toolkit.stages.generation", "es4r_toolkit.masks"} <= {*MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    module = importlib.import_module(name)
    if name.endswith("backends.espeak") and importlib.util.find_spec("espeakng_loader") is None:
        pytest.skip("the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'")
    monkeypatch.chdir(tmp_path)
    # Some examples use torch without importing it, since their module does.
    results = doctest.testmod(module)
    assert results.failed == 0, f"{results.failed} of {results.attempted} examples of {name} fail"


@pytest.mark.parametrize("name", [name for name in es4r_toolkit.lobes.__all__ if name[0].isupper()])
def test_every_lobe_shows_an_example(name):
    lobe = getattr(es4r_toolkit.lobes, name)
    if not hasattr(lobe, "forward"):
        pytest.skip("a plain record, not a lobe")
    assert ">>> " in lobe.__doc__
