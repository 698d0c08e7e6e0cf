"""What the converters of published voices share: pickled modules to named weights, and a folder made whole or not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from es4r_toolkit.errors import BackendError

PARALLEL = "module."  # what training on several GPUs puts before every name
GONE = {"bert.embeddings.position_ids"}  # counted, not learned; transformers no longer keeps it


def named_weights(nets: object, modules: Sequence[str], source: str | Path) -> dict[str, Tensor]:
    """State dicts by module -> float32 weights by ``module.name``, those of other modules left out.

    Raises
    ------
    BackendError
        If a module is missing.
    """
    lacking = [name for name in modules if not isinstance(nets, dict) or not isinstance(nets.get(name), Mapping)]
    if lacking:
        raise BackendError(source, f"holds no {lacking[0]}", "name a whole checkpoint of this voice")
    weights: dict[str, Tensor] = {}
    for module in modules:
        state = nets[module]
        prefix = PARALLEL if all(name.startswith(PARALLEL) for name in state) else ""
        weights |= {f"{module}.{name.removeprefix(prefix)}": value for name, value in state.items()}
    return {name: value.float().contiguous().clone() for name, value in weights.items() if name not in GONE}


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``target`` at the end of the block.

    Raises
    ------
    BackendError
        If the target is there with something in it, or something cannot be read or written in the block.
    """
    try:
        target = target.expanduser().resolve()
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise BackendError(target, "is there already", "name a new folder")
        building = target.with_name(f".{target.name}.{os.getpid()}.part")
        building.mkdir(parents=True)
        try:
            yield building
            if target.exists():
                target.rmdir()
            building.rename(target)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
    except (OSError, SafetensorError) as fault:
        mend = "make room, and name a folder that can be written"
        raise BackendError(target, f"cannot be made ({fault})", mend) from fault
