"""Running the preparers of recipes, and reading what comes of them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from tones import lines_of

from es4r_toolkit.data.manifest import ManifestReport, read_manifest
from es4r_toolkit.data.preparing import SPLITS, prepare_alone

RECIPES = Path(__file__).parents[2] / "recipes"


def step(corpus: str) -> Callable[..., None]:
    """``prepare`` of a recipe."""
    spec = importlib.util.spec_from_file_location(f"prepare_{corpus}", RECIPES / corpus / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module.prepare


def prepared(corpus: str, data: Path, output: Path, *options: str) -> dict[str, ManifestReport]:
    """What comes of the command line of a recipe's prepare.py; nothing that it writes may be rejected."""
    hparams = RECIPES / corpus / "hparams" / "train.yaml"
    prepare_alone(step(corpus), hparams, [str(data), "--output", str(output), *options])
    reports = {split: read_manifest(output / f"{split}.jsonl", need_response=True) for split in SPLITS}
    assert not [rejection for report in reports.values() for rejection in report.rejected]
    return reports


def rejects(output: Path) -> list[tuple[str, str, str, int]]:
    """Place, field, problem and samples lost of all that was left out."""
    path = output / "rejects.jsonl"
    entries = lines_of(path) if path.is_file() else []
    return [(one["place"], one["field"], one["problem"], one.get("samples", 0)) for one in entries]


def ids(report: ManifestReport) -> list[str]:
    return [dialogue.id for dialogue in report.dialogues]
