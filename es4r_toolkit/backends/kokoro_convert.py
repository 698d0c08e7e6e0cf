"""Published Kokoro files, pickles, to safetensors: read once, with nothing in them executed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from es4r_toolkit.backends.checkpoints import read_pickle
from es4r_toolkit.backends.kokoro import CONFIG, MODULES, VOICES, WEIGHTS, build_model, load_strictly
from es4r_toolkit.errors import BackendError

PARALLEL = "module."  # what training on several GPUs puts before every name


def convert(source: str | Path, output: str | Path) -> Path:
    """Write a folder that ``KokoroSynthesizer`` reads.

    Arguments
    ---------
    source : str or Path
        A folder with ``config.json``, one ``.pth`` file and ``voices/*.pt``, as its authors publish them.
    output : str or Path
        The folder; it is made, and must not be there with files in it.

    Raises
    ------
    BackendError
        If a file is missing or cannot be read, or the checkpoint holds not what its configuration says.
    """
    folder, target = Path(source), Path(output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BackendError(target, "is there already", "name a new folder")
    checkpoints, packs = sorted(folder.glob("*.pth")), sorted((folder / "voices").glob("*.pt"))
    for found, name in ((checkpoints, "*.pth"), (packs, "voices/*.pt"), ([*folder.glob(CONFIG)], CONFIG)):
        if not found:
            raise BackendError(folder, f"has no {name}", "name the folder of what its authors publish")
    if len(checkpoints) > 1:
        raise BackendError(folder, f"has {len(checkpoints)} .pth files", "leave the one to convert")
    nets = read_pickle(checkpoints[0])
    lacking = [name for name in MODULES if not isinstance(nets, dict) or name not in nets]
    if lacking:
        raise BackendError(checkpoints[0], f"holds no {lacking[0]}", "name a checkpoint of Kokoro")
    weights = {
        f"{module}.{name.removeprefix(PARALLEL)}": value.float().contiguous()
        for module in MODULES
        for name, value in nets[module].items()
    }
    weights.pop("bert.embeddings.position_ids", None)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as fault:
        raise BackendError(folder / CONFIG, f"is not JSON ({fault})", "download it again") from fault
    load_strictly(build_model(config, folder), weights, checkpoints[0])
    voices = {path.stem: _pack(path) for path in packs}
    building = target.with_name(target.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    save_file(weights, building / WEIGHTS)
    save_file(voices, building / VOICES)
    shutil.copy(folder / CONFIG, building / CONFIG)
    if target.exists():
        target.rmdir()
    building.rename(target)
    return target


def _pack(path: Path) -> Tensor:
    pack = read_pickle(path)
    if not isinstance(pack, torch.Tensor) or pack.dim() != 3 or pack.shape[1:] != (1, 256):
        raise BackendError(path, "is no voice pack (N, 1, 256)", "download it again")
    return pack.float().contiguous()
