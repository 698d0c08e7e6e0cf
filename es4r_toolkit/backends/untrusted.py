"""What a checkpoint of unknown origin asks of transformers, looked at before transformers does it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import FeatureExtractionMixin, PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME, cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from es4r_toolkit.errors import BackendError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
INDEX = ".safetensors.index.json"
MOST_LAYERS = 1000  # the deepest that are published have a fifth of it
# Of a log-mel front end; Whisper's are 400 samples and 128 bins.
MOST_SAMPLES, MOST_BINS = 2**16, 2**10


def refuse_pickles(source: str | Path, config: PreTrainedConfig, revision: str | None = None) -> None:
    """Find the files that transformers would open, and refuse them unless they are the checkpoint's own safetensors.

    transformers reads a pickle where an index of safetensors files, the
    configuration or an adapter beside the model names one, and asks a service
    on the hub to convert a checkpoint that has nothing else.

    Arguments
    ---------
    source : str or Path
        Hub name or local folder.
    config : PreTrainedConfig
        Its configuration.
    revision : str, optional
        Branch, tag or commit on the hub.

    Raises
    ------
    BackendError
        If weights would be read from anything else.
    """
    refuse_adapter(source, revision)
    named = getattr(config, "transformers_weights", None)
    if named is not None and not _is_own(named, (".safetensors", INDEX)):
        raise BackendError(source, f"names {named!r} as its weights, which are not safetensors", "convert them")
    options = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
    for name in [named] if named is not None else [SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME]:
        file = cached_file(str(source), name, **options)
        if file is not None and Path(file).is_file():
            if name.endswith(INDEX):
                _check_index(Path(file), source)
            return
    pickles = sorted(path.name for path in Path(source).glob("*") if path.suffix in PICKLES)
    held = f", but {pickles[0]}, a pickle, which can run code when it is read" if pickles else ""
    raise BackendError(
        source, f"cannot be loaded: it has no {SAFE_WEIGHTS_NAME}{held}", instead_of_pickles(source, revision)
    )


def refuse_adapter(source: str | Path, revision: str | None = None) -> None:
    """Refuse a checkpoint with an adapter beside it, which transformers would load too, from whatever it is in.

    Raises
    ------
    BackendError
        If there is one.
    """
    if find_adapter_config_file(str(source), revision=revision) is not None:
        raise BackendError(source, "has an adapter beside its weights", "merge it: merge_and_unload of peft, and save")


def instead_of_pickles(source: str | Path, revision: str | None = None) -> str:
    """What to do about a checkpoint that has no safetensors."""
    folder = Path(source).expanduser()
    if folder.is_dir() and not any((folder / name).is_file() for name in (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)):
        return "give a checkpoint in safetensors"
    commit = ["--revision", revision] if revision else []
    command = shlex.join(["es4r", "convert-checkpoint", str(source), *commit, "--output", "FOLDER"])
    return f"convert its {WEIGHTS_NAME} once: {command}"


def refuse_endless_layers(source: str | Path, revision: str | None = None) -> None:
    """Refuse a configuration of more layers than can be built in reasonable time.

    Raises
    ------
    BackendError
        If it asks for more than a thousand.
    """
    values, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
    for name, value in _numbers(values):
        if "layer" in name and value > MOST_LAYERS:
            raise BackendError(source, f"{name} is {value}, more than {MOST_LAYERS}", "take another checkpoint")


def refuse_huge_filters(source: str | Path, revision: str | None = None) -> None:
    """Refuse a feature extractor whose mel filters would fill the memory.

    Raises
    ------
    BackendError
        If a frame has more than 65,536 samples, or more than 1,024 mel bins.
    """
    values, _ = FeatureExtractionMixin.get_feature_extractor_dict(source, revision=revision)
    for name, value in _numbers(values):
        most = {"n_fft": MOST_SAMPLES, "feature_size": MOST_BINS}.get(name)
        if most is not None and value > most:
            raise BackendError(source, f"{name} is {value}, more than {most}", "take another checkpoint")


def _check_index(file: Path, source: str | Path) -> None:
    try:
        files = set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise BackendError(source, f"its {file.name} cannot be read ({fault!r})", "download it again") from fault
    strange = sorted(str(name) for name in files if not _is_own(name, (".safetensors",)))
    if strange:
        raise BackendError(
            source, f"its {file.name} names {strange[0]!r}, no safetensors file beside it", "convert the checkpoint"
        )


def _is_own(name: object, endings: tuple[str, ...]) -> bool:
    return isinstance(name, str) and Path(name).name == name and name.endswith(endings)


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int | float):
            yield name, value
