"""Published Kokoro files, pickles, to safetensors: read once, with nothing in them executed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from es4r_toolkit.backends.checkpoints import check_weights, read_pickle
from es4r_toolkit.backends.converting import named_weights, new_folder
from es4r_toolkit.backends.kokoro import CONFIG, MODULES, VOICES, WEIGHTS, build_model
from es4r_toolkit.errors import BackendError


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
    folder = Path(source)
    checkpoints, packs = sorted(folder.glob("*.pth")), sorted((folder / "voices").glob("*.pt"))
    for found, name in ((checkpoints, "*.pth"), (packs, "voices/*.pt"), ([*folder.glob(CONFIG)], CONFIG)):
        if not found:
            raise BackendError(folder, f"has no {name}", "name the folder of what its authors publish")
    if len(checkpoints) > 1:
        raise BackendError(folder, f"has {len(checkpoints)} .pth files", "leave the one to convert")
    with new_folder(Path(output)) as target:
        weights = named_weights(read_pickle(checkpoints[0]), MODULES, checkpoints[0])
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        except ValueError as fault:
            raise BackendError(folder / CONFIG, f"is not JSON ({fault})", "download it again") from fault
        check_weights(build_model(config, folder).state_dict(), weights, checkpoints[0])
        save_file(weights, target / WEIGHTS)
        save_file({path.stem: _pack(path) for path in packs}, target / VOICES)
        shutil.copy(folder / CONFIG, target / CONFIG)
    return Path(output).expanduser()


def _pack(path: Path) -> Tensor:
    pack = read_pickle(path)
    if not isinstance(pack, torch.Tensor) or pack.dim() != 3 or pack.shape[1:] != (1, 256):
        raise BackendError(path, "is no voice pack (N, 1, 256)", "download it again")
    return pack.float().contiguous()
