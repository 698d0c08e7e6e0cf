"""Loading Hugging Face checkpoints: safetensors only, and one clear error where it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import logging

from es4r_toolkit.errors import BackendError

BAR_FROM_BYTES = 500_000_000


@contextmanager
def naming(source: str | Path) -> Iterator[None]:
    """Turn what a loader raises for a source into one BackendError that names it."""
    folder = Path(source).expanduser()
    if not folder.exists() and (folder.is_absolute() or str(source)[:1] in ".~"):
        raise BackendError(source, "no such folder", "give a hub name or a local folder of a safetensors checkpoint")
    verbosity = logging.get_verbosity()
    # Its report of keys that differ is replaced by the strict check below, its bar kept for what takes time.
    logging.set_verbosity_error()
    quick = sum(file.stat().st_size for file in folder.glob("*.safetensors")) < BAR_FROM_BYTES and folder.is_dir()
    if quick:
        logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as fault:
        first = str(fault).strip().split("\n")[0][:300]
        raise BackendError(
            source, f"cannot be loaded ({first})", "give a hub name or a local folder of a safetensors checkpoint"
        ) from fault
    finally:
        logging.set_verbosity(verbosity)
        if quick:
            logging.enable_progress_bar()


def load_weights(
    model_class: type[PreTrainedModel],
    source: str | Path,
    needed: Callable[[str], bool] = lambda key: True,
    **options: Any,
) -> PreTrainedModel:
    """Load a model, refusing a checkpoint that lacks any weight it needs.

    Arguments
    ---------
    model_class : type
        With ``from_pretrained``.
    source : str or Path
        Hub name or local folder.
    needed : callable
        Which missing weight names matter.
    options
        Passed on to ``from_pretrained``.

    Raises
    ------
    BackendError
        If the source is missing, is not safetensors, or lacks or misshapes a needed weight.
    """
    with naming(source):
        model, report = model_class.from_pretrained(source, use_safetensors=True, output_loading_info=True, **options)
    lacking = sorted(key for key in report["missing_keys"] if needed(key))
    if lacking:
        raise BackendError(
            source, f"lacks {len(lacking)} weights, {lacking[0]} the first", f"it is no {model_class.__name__}"
        )
    return model


def check_sizes(source: str | Path, backend: object, **expected: int | None) -> None:
    """Raise BackendError unless a loaded back end has the sizes that the YAML states; None is not checked."""
    for name, value in expected.items():
        if value is not None and getattr(backend, name) != value:
            raise BackendError(
                source, f"{name} is {getattr(backend, name)}, the YAML says {value}", f"set {name} to it"
            )
