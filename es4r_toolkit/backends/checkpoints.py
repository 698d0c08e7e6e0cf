"""Loading Hugging Face checkpoints: safetensors only, and one clear error where it fails."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from es4r_toolkit.backends.untrusted import refuse_endless_layers, refuse_pickles
from es4r_toolkit.data.files import size_of_file
from es4r_toolkit.errors import BackendError

BAR_FROM_BYTES = 500_000_000
# What loaders raise for files that are missing, broken, hostile or for a library that is not installed.
UNFIT = (
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    TypeError,
    AttributeError,
    ImportError,
    MemoryError,
    ArithmeticError,
    StrictDataclassError,
    SafetensorError,
)


@dataclass(frozen=True)
class Planned:
    """A checkpoint that a dry run would have loaded.

    Attributes
    ----------
    source : str
        Hub name or local folder.
    weights : int
        How many numbers it holds, by the sizes that its fragment states.
    dtype : torch.dtype
        In which they are published.
    """

    source: str
    weights: int
    dtype: torch.dtype

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine."""
        return is_folder(self.source)

    @property
    def size(self) -> int:
        """Bytes of its file."""
        return self.weights * self.dtype.itemsize


@dataclass(frozen=True)
class _Plan:
    """What a dry run has come upon: checkpoints, and the sizes that fragments state of their sources."""

    checkpoints: list[Planned]
    sizes: dict[str, Mapping[str, Any]]


_PLAN: ContextVar[_Plan | None] = ContextVar("plan", default=None)


@contextmanager
def planning() -> Iterator[list[Planned]]:
    """Build back ends on the meta device, from the sizes that their fragments state: no weights, no network.

    Gives the list of the checkpoints that would have been loaded.
    """
    plan = _Plan([], {})
    token = _PLAN.set(plan)
    try:
        with torch.device("meta"):
            yield plan.checkpoints
    finally:
        _PLAN.reset(token)


def is_planning() -> bool:
    """Whether back ends are being built without weights."""
    return _PLAN.get() is not None


def plan(source: str | Path, weights: int, dtype: torch.dtype) -> None:
    """Note what a dry run would have loaded."""
    check_folder(source)
    _PLAN.get().checkpoints.append(Planned(str(source), weights, dtype))


def is_folder(source: str | Path) -> bool:
    """Whether a source is a local folder."""
    return Path(source).expanduser().is_dir()


def load_config(
    source: str | Path, architecture: Mapping[str, Any] | None = None, revision: str | None = None
) -> PreTrainedConfig:
    """The configuration of a checkpoint; in a dry run of a hub name, what the fragment states of it.

    Arguments
    ---------
    source : str or Path
        Hub name or local folder.
    architecture : mapping, optional
        ``model_type`` and the keys of its ``config.json`` that are not that type's defaults.
    revision : str, optional
        Branch, tag or commit on the hub.

    Raises
    ------
    BackendError
        If there is none.
    """
    if is_planning() and not is_folder(source):
        check_folder(source)
        known = _PLAN.get().sizes
        # Another part of the same checkpoint may have stated them.
        stated = known.setdefault(str(source), architecture) if architecture else known.get(str(source))
        if not stated:
            raise BackendError(
                source, "its sizes are not stated", "give its fragment an architecture: docs/backends.md"
            )
        return AutoConfig.for_model(**stated)
    with naming(source):
        refuse_endless_layers(source, revision)
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    # A checkpoint may name a repository of compiled code for its attention, which is not the one it is used with.
    config._attn_implementation = None
    return config


def check_folder(source: str | Path) -> None:
    """Raise BackendError where a source can only be a local folder, and there is none."""
    folder = Path(source).expanduser()
    if not folder.exists() and (folder.is_absolute() or str(source)[:1] in ".~"):
        raise BackendError(source, "no such folder", "give a hub name or a local folder of a checkpoint")


@contextmanager
def naming(source: str | Path) -> Iterator[None]:
    """Turn what a loader raises for a source into one BackendError that names it."""
    check_folder(source)
    folder = Path(source).expanduser()
    verbosity = logging.get_verbosity()
    # Its report of keys that differ is replaced by the strict check below, its bar kept for what takes time.
    logging.set_verbosity_error()
    quick = sum(file.stat().st_size for file in folder.glob("*.safetensors")) < BAR_FROM_BYTES and folder.is_dir()
    if quick:
        logging.disable_progress_bar()
    try:
        yield
    except UNFIT as fault:
        first = str(fault).strip().split("\n")[0][:300]
        raise BackendError(
            source, f"cannot be loaded ({first})", "give a hub name or a local folder of a checkpoint"
        ) from fault
    finally:
        logging.set_verbosity(verbosity)
        if quick:
            logging.enable_progress_bar()


def load_weights(
    model_class: type[PreTrainedModel],
    source: str | Path,
    config: PreTrainedConfig,
    needed: Callable[[str], bool] = lambda key: True,
    whole: PreTrainedConfig | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Load a model, refusing a checkpoint that lacks any weight it needs; in a dry run, build it without weights.

    Arguments
    ---------
    model_class : type
        With ``from_pretrained``.
    source : str or Path
        Hub name or local folder.
    config : PreTrainedConfig
        Of what is loaded.
    needed : callable
        Which missing weight names matter.
    whole : PreTrainedConfig, optional
        Of the whole checkpoint, where a part of it is loaded.
    options
        Passed on to ``from_pretrained``.

    Raises
    ------
    BackendError
        If the source is missing, is not safetensors, or lacks or misshapes a needed weight.
    """
    if is_planning():
        return _without_weights(model_class, source, config, whole or config, options)
    with naming(source):
        refuse_pickles(source, whole or config, options.get("revision"))
        model, report = model_class.from_pretrained(
            source, config=config, use_safetensors=True, output_loading_info=True, **options
        )
    lacking = sorted(key for key in report["missing_keys"] if needed(key))
    if lacking:
        raise BackendError(
            source, f"lacks {len(lacking)} weights, {lacking[0]} the first", f"it is no {model_class.__name__}"
        )
    return model


def _without_weights(
    model_class: type[PreTrainedModel],
    source: str | Path,
    config: PreTrainedConfig,
    whole: PreTrainedConfig,
    options: Mapping[str, Any],
) -> PreTrainedModel:
    # Automatic classes look the class up; the others are it.
    build = getattr(model_class, "from_config", None) or model_class._from_config
    published = whole.dtype if isinstance(whole.dtype, torch.dtype) else torch.float32
    plan(source, sum(weight.numel() for weight in build(whole).parameters()), published)
    return build(config, dtype=options.get("dtype", torch.float32))


def read_pickle(path: Path, ignored: Sequence[str] = ()) -> Any:
    """What a pickle of tensors holds; nothing in it is executed.

    Arguments
    ---------
    path : Path
    ignored : sequence of str
        Functions that it may name, such as ``builtins.getattr``; none is called, each gives None.

    Raises
    ------
    BackendError
        If it is missing, broken or names any other function.
    """
    size_of_file(path, BackendError, "name a file that the model's authors publish")
    try:
        with torch.serialization.safe_globals([(_nothing, name) for name in ignored]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as fault:
        # What reading broken or hostile bytes raises, nobody has listed. torch wraps it in advice to trust the file.
        cause = fault.__context__ or fault
        reason = (str(cause) or repr(cause)).strip().split("\n")[0][:200]
        mend = "download it again; if it is whole, it holds more than weights, and is not read"
        raise BackendError(path, f"cannot be read as weights ({reason})", mend) from fault


def _nothing(*_: object) -> None:
    """What a function that is not called gives."""


def check_weights(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise BackendError unless each of a module's weights is there, in its shape, and none is left over."""
    odd = sorted(own.keys() ^ weights.keys())
    if odd:
        problem = f"{len(odd)} weights differ by name, {odd[0]} is {'missing' if odd[0] in own else 'not known'}"
        raise BackendError(source, problem, "convert a whole checkpoint with its own configuration")
    for name, value in own.items():
        if value.shape != weights[name].shape:
            shapes = f"{name} is {tuple(weights[name].shape)} there and {tuple(value.shape)} by its configuration"
            raise BackendError(source, shapes, "convert it with its own configuration")


def digest(weights: Iterable[Tensor]) -> str:
    """A short name of what some weights hold."""
    name = hashlib.blake2b(digest_size=16)
    for weight in weights:
        name.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    return name.hexdigest()


def check_sizes(source: str | Path, backend: object, **expected: int | None) -> None:
    """Raise BackendError unless a loaded back end has the sizes that the YAML states; None is not checked."""
    for name, value in expected.items():
        if value is not None and getattr(backend, name) != value:
            raise BackendError(
                source, f"{name} is {getattr(backend, name)}, the YAML says {value}", f"set {name} to it"
            )
