"""A published checkpoint whose weights are pickles, to safetensors: read once, with nothing in them executed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from huggingface_hub import snapshot_download
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from es4r_toolkit.backends.checkpoints import is_folder, load_config, naming, read_pickle
from es4r_toolkit.backends.converting import new_folder
from es4r_toolkit.errors import BackendError

BESIDE = ("*.json", "*.txt", "*.model")  # configurations and tokenizers
WANTED = [WEIGHTS_NAME, "pytorch_model-*.bin", *BESIDE]


def convert(
    source: str | Path,
    output: str | Path,
    revision: str | None = None,
    progress: Callable[..., Iterable] | None = None,
) -> Path:
    """Write a folder that every back end reads as its ``source``.

    Arguments
    ---------
    source : str or Path
        Hub name or local folder of a checkpoint with ``pytorch_model.bin``, or with an index of several such files.
    output : str or Path
        The folder; it is made, and must not be there with files in it.
    revision : str, optional
        Branch, tag or commit on the hub.
    progress : callable, optional
        Wraps an iterable, given ``unit``.

    Raises
    ------
    BackendError
        If there is nothing to convert, or a file cannot be read or holds anything but weights.
    """
    folder = _folder(source, revision)
    load_config(folder)
    files = _weight_files(folder)
    with new_folder(Path(output)) as target:
        places: dict[str, str] = {}
        for number, file in enumerate(files if progress is None else progress(files, unit="file"), start=1):
            weights = _weights(file)
            name = SAFE_WEIGHTS_NAME if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
            save_file(weights, target / name, metadata={"format": "pt"})
            places |= dict.fromkeys(weights, name)
        if len(files) > 1:
            size = sum(path.stat().st_size for path in target.glob("*.safetensors"))
            index = {"metadata": {"total_size": size}, "weight_map": places}
            (target / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        for path in (path for pattern in BESIDE for path in folder.glob(pattern)):
            if path.name != WEIGHTS_INDEX_NAME:
                shutil.copyfile(path, target / path.name)
    return Path(output)


def _folder(source: str | Path, revision: str | None) -> Path:
    if is_folder(source):
        return Path(source).expanduser()
    with naming(source):
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=WANTED))


def _weight_files(folder: Path) -> list[Path]:
    index, single = folder / WEIGHTS_INDEX_NAME, folder / WEIGHTS_NAME
    if single.is_file():
        return [single]
    if not index.is_file():
        raise BackendError(
            folder, f"has neither {WEIGHTS_NAME} nor {WEIGHTS_INDEX_NAME}", "there is nothing to convert"
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise BackendError(index, f"cannot be read ({fault!r})", "download it again") from fault
    strange = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if strange:
        raise BackendError(index, f"names {strange[0]!r}, no file beside it", "take another checkpoint")
    return [folder / name for name in names]


def _weights(file: Path) -> dict[str, Tensor]:
    held = read_pickle(file)
    if not isinstance(held, Mapping):
        raise BackendError(file, f"holds a {type(held).__name__}, not weights by name", "name a published checkpoint")
    weights: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            problem = f"holds {name!r}, a {type(value).__name__}, beside weights"
            raise BackendError(file, problem, "name a published checkpoint, not what a training left")
        # Safetensors keep nothing in common, such as the table of a language model that is its last layer too.
        memory = value.untyped_storage().data_ptr()
        weights[name] = value.clone().contiguous() if memory in taken else value.contiguous()
        taken.add(memory)
    return weights
