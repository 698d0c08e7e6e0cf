"""A published StyleTTS 2 checkpoint, a pickle, to safetensors: read once, with nothing in it executed."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from es4r_toolkit.backends.checkpoints import read_pickle
from es4r_toolkit.backends.converting import named_weights, new_folder
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
    with new_folder(Path(output)) as folder:
        settings = {name: read_settings(Path(path)) for name, path in ((CONFIG, config), (PLBERT, plbert))}
        # The published file looks an attribute up, which no weight needs.
        loaded = read_pickle(Path(checkpoint), ignored=["builtins.getattr"])
        nets = loaded.get("net") if isinstance(loaded, dict) else None
        weights = _without_twin(named_weights(nets, MODULES, checkpoint), checkpoint)
        parts, _ = build_parts(settings[CONFIG], settings[PLBERT], checkpoint)
        strict_state(parts, weights, checkpoint)
        save_file(weights, folder / WEIGHTS)
        shutil.copy(config, folder / CONFIG)
        shutil.copy(plbert, folder / PLBERT)
    return Path(output).expanduser()


def _without_twin(weights: dict[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """Without the network that stands there under two names."""
    for name in [name for name in weights if name.startswith(TWIN)]:
        kept = KEPT + name.removeprefix(TWIN)
        if kept not in weights or not torch.equal(weights[name], weights[kept]):
            raise BackendError(source, f"{name} is not {kept}", "it is no checkpoint of StyleTTS 2")
        del weights[name]
    return weights
