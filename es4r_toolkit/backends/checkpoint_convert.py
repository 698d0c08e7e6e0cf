"""A published checkpoint whose weights are pickles, to safetensors: read once, with nothing in them executed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from es4r_toolkit.backends.checkpoints import is_folder, load_config, naming, read_pickle
from es4r_toolkit.backends.converting import new_folder
from es4r_toolkit.backends.untrusted import refuse_adapter
from es4r_toolkit.errors import BackendError

# Configurations, tokenizers and chat templates; an index tells of weights in another form.
BESIDE = ("*.json", "*.txt", "*.model", "*.jinja", "*.spm", "*.tiktoken")
OF_OTHERS = "*.index.json"
WANTED = [WEIGHTS_NAME, WEIGHTS_INDEX_NAME, "pytorch_model-*.bin", *BESIDE]
# What each file of safetensors says of itself under this name is no weight.
RESERVED = "__metadata__"
ANOTHER = "name a published checkpoint, not what a training left"


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
        If there is nothing to convert, a file cannot be read or holds anything but weights, or an index names other
        weights than there are.
    """
    folder = _folder(source, revision)
    load_config(folder)
    refuse_adapter(folder)
    promised, files = _weight_files(folder)
    with new_folder(Path(output)) as target:
        places: dict[str, str] = {}
        for number, file in enumerate(files if progress is None else progress(files, unit="file"), start=1):
            weights = dict(_weights(file))
            name = SAFE_WEIGHTS_NAME if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
            if twice := sorted(weights.keys() & places.keys()):
                raise BackendError(file, f"holds {twice[0]}, which another file holds too", "download it again")
            save_file(weights, target / name, metadata={"format": "pt"})
            places |= dict.fromkeys(weights, name)
        if lacking := sorted(promised - places.keys()):
            problem = f"names {len(lacking)} weights that no file holds, {lacking[0]} the first"
            raise BackendError(folder / WEIGHTS_INDEX_NAME, problem, "download it again")
        if not places:
            raise BackendError(folder, "holds no weight", ANOTHER)
        if len(files) > 1:
            size = sum(path.stat().st_size for path in target.glob("*.safetensors"))
            index = {"metadata": {"total_size": size}, "weight_map": places}
            (target / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        for path in (path for pattern in BESIDE for path in folder.glob(pattern)):
            if path.is_file() and not path.match(OF_OTHERS):
                shutil.copyfile(path, target / path.name)
    return Path(output).expanduser()


def _folder(source: str | Path, revision: str | None) -> Path:
    if is_folder(source):
        return Path(source).expanduser()
    with naming(source):
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=WANTED))


def _weight_files(folder: Path) -> tuple[set[str], list[Path]]:
    """The names of weights that an index promises, and the files that hold them."""
    index, single = folder / WEIGHTS_INDEX_NAME, folder / WEIGHTS_NAME
    if single.is_file():
        return set(), [single]
    if not index.is_file():
        raise BackendError(folder, f"has no {WEIGHTS_NAME} and no {WEIGHTS_INDEX_NAME}", "there is nothing to convert")
    try:
        places = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        files = sorted(set(places.values()))
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as fault:
        raise BackendError(index, f"cannot be read ({fault!r})"[:300], "download it again") from fault
    strange = [name for name in files if not isinstance(name, str) or Path(name).name != name]
    if strange:
        raise BackendError(index, f"names {strange[0]!r}, no file beside it", "take another checkpoint")
    return set(places), [folder / name for name in files]


def _weights(file: Path) -> Iterator[tuple[str, Tensor]]:
    held = read_pickle(file)
    if not isinstance(held, Mapping):
        raise BackendError(file, f"holds a {type(held).__name__}, not weights by name", ANOTHER)
    taken: set[int] = set()
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise BackendError(file, f"holds {name!r}, a {type(value).__name__}, beside weights", ANOTHER)
        if name == RESERVED or not name.isprintable() or not _is_plain(value):
            raise BackendError(file, f"holds {name!r} in a form that safetensors do not have", ANOTHER)
        # Safetensors keep nothing in common, such as the table of a language model that is its last layer too.
        memory = value.untyped_storage().data_ptr()
        yield name, value.clone().contiguous() if memory in taken else value.contiguous()
        taken.add(memory)


def _is_plain(value: Tensor) -> bool:
    """Whether each number of a tensor stands in memory, in a type that safetensors have."""
    if value.layout != torch.strided or value.is_nested or value.is_quantized or value.is_meta:
        return False
    if value.dtype in (torch.complex32, torch.complex128):
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
