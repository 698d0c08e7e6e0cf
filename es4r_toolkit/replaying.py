"""Computes a batch that training kept once more, from the state it was met in."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from es4r_toolkit.brain import ES4RBrain
from es4r_toolkit.data.kept_batches import HEAD_FILE, KeptBatch
from es4r_toolkit.errors import BackendError, ConfigError, DialogueError
from es4r_toolkit.examining import Findings
from es4r_toolkit.inference.loading import load_pipeline
from es4r_toolkit.lobes import EmotionHead
from es4r_toolkit.pipeline import EmpathyPipeline


def replay(
    folder: str | Path, model: str | Path | None = None, device: str = "cpu", trust_remote_code: bool = False
) -> tuple[KeptBatch, Findings]:
    """Compute a kept batch in training mode, with its own random numbers, forward and back.

    Arguments
    ---------
    folder : str or Path
        What training kept.
    model : str or Path, optional
        A model folder whose weights are taken in place of the kept ones.
    device : str
        The numbers are those of training on the same kind of device alone.
    trust_remote_code : bool
        As for ``EmpathyResponder.from_hparams``.

    Raises
    ------
    DialogueError
        If the folder holds no kept batch.
    BackendError, ConfigError
        If its model cannot be built.
    """
    kept = KeptBatch.read(folder)
    precision = kept.settings["precision"]
    if precision == "fp16" and device == "cpu":
        raise ConfigError("--device", "is cpu, and the batch was computed in fp16", "name a GPU, such as cuda:0")
    pipeline = load_pipeline(folder if model is None else model, None, None, trust_remote_code)
    modules: dict[str, nn.Module] = {"pipeline": pipeline}
    if kept.settings.get("emotions"):
        modules["emotion_head"] = _head(Path(folder), kept, pipeline)
    options = {"device": device, "precision": precision}
    brain = ES4RBrain(modules, hparams={"losses": kept.settings["losses"]}, run_opts=options)
    brain.modules.train()
    return kept, brain.examine(kept.batch.to(device), kept.random_numbers)


def _head(folder: Path, kept: KeptBatch, pipeline: EmpathyPipeline) -> EmotionHead:
    head = EmotionHead(pipeline.understanding.encoder.n_mels, kept.settings["emotions"])
    try:
        head.load_state_dict(load_file(folder / HEAD_FILE))
    except (OSError, SafetensorError) as fault:
        raise DialogueError(folder / HEAD_FILE, f"cannot be read ({fault})", "name a whole kept batch") from None
    except RuntimeError as fault:
        problem = " ".join(str(fault).split())[:200]
        raise BackendError(folder / HEAD_FILE, f"does not fit the model ({problem})", "name its own model") from None
    return head
