"""A published StyleTTS 2 checkpoint, a pickle, to safetensors: read once, with nothing in it executed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from es4r_toolkit.backends.checkpoints import read_pickle
from es4r_toolkit.backends.styletts2 import (
    CONFIG,
    KEPT,
    MODULES,
    PLBERT,
    TWIN,
    WEIGHTS,
    build_parts,
    read_settings,
    strict_state,
)
from es4r_toolkit.errors import BackendError

PARALLEL = "module."  # what training on several GPUs puts before every name
GONE = {"bert.embeddings.position_ids"}  # counted, not learned; transformers no longer keeps it


def convert(checkpoint: str | Path, config: str | Path, plbert: str | Path, output: str | Path) -> Path:
    """Write a folder that ``StyleTTS2Synthesizer`` reads.

    Arguments
    ---------
    checkpoint : str or Path
        Such as ``epochs_2nd_00020.pth``.
    config, plbert : str or Path
        ``config.yml`` beside it, and that of its PL-BERT.
    output : str or Path
        The folder; it is made, and must not be there with files in it.

    Raises
    ------
    BackendError
        If a file cannot be read, or the checkpoint holds not what its configurations say.
    """
    target = Path(output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BackendError(target, "is there already", "name a new folder")
    settings = {name: read_settings(Path(path)) for name, path in ((CONFIG, config), (PLBERT, plbert))}
    weights = _flat(_nets(Path(checkpoint)), checkpoint)
    parts, _ = build_parts(settings[CONFIG], settings[PLBERT], checkpoint)
    strict_state(parts, weights, checkpoint)
    building = target.with_name(target.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    save_file(weights, building / WEIGHTS)
    shutil.copy(config, building / CONFIG)
    shutil.copy(plbert, building / PLBERT)
    if target.exists():
        target.rmdir()
    building.rename(target)
    return target


def _nets(path: Path) -> Mapping[str, Any]:
    # The published file looks an attribute up, which no weight needs.
    loaded = read_pickle(path, ignored=["builtins.getattr"])
    nets = loaded.get("net") if isinstance(loaded, dict) else None
    lacking = [name for name in MODULES if not isinstance(nets, dict) or name not in nets]
    if lacking:
        raise BackendError(path, f"holds no {lacking[0]}", "name a checkpoint of StyleTTS 2's second stage")
    return nets


def _flat(nets: Mapping[str, Mapping[str, Tensor]], source: str | Path) -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    for module in MODULES:
        state = nets[module]
        prefix = PARALLEL if all(name.startswith(PARALLEL) for name in state) else ""
        flat |= {f"{module}.{name.removeprefix(prefix)}": value for name, value in state.items()}
    for name in [name for name in flat if name.startswith(TWIN)]:
        kept = KEPT + name.removeprefix(TWIN)
        if kept not in flat or not torch.equal(flat[name], flat[kept]):
            raise BackendError(source, f"{name} is not {kept}", "it is no checkpoint of StyleTTS 2")
        del flat[name]
    return {name: value.float().contiguous().clone() for name, value in flat.items() if name not in GONE}
