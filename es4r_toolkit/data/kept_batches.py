"""Batches whose numbers went wrong in training, kept whole so that they can be computed again: safetensors and JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.data.responses import make_folder, write_json, write_text
from es4r_toolkit.dialogue import ROLES, Dialogue, Turn
from es4r_toolkit.errors import DialogueError

BATCH_FILE, TENSORS_FILE, HEAD_FILE = "batch.json", "tensors.safetensors", "emotion_head.safetensors"
# As in the folder of an exported model, so that the same code reads it.
MODEL_FILE, WEIGHTS_FILE = "model.yaml", "trained.safetensors"
FORMAT = 1
PRECISIONS = ("fp32", "bf16", "fp16")
MEND = "name a folder that training kept under nonfinite/, whole"


@dataclass(frozen=True)
class RandomNumbers:
    """Where torch's random numbers stand.

    Attributes
    ----------
    cpu : Tensor of uint8
    gpu : Tensor of uint8, or None
        Of the GPU in use.
    """

    cpu: Tensor
    gpu: Tensor | None = None

    @classmethod
    def now(cls, device: torch.device | str) -> RandomNumbers:
        """As they stand, of the processor and of the device if it is a GPU."""
        on_gpu = torch.device(device).type == "cuda"
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_gpu else None)

    def restore(self, device: torch.device | str) -> None:
        """Go on from here; a GPU's numbers are taken up on a GPU only.

        Raises
        ------
        DialogueError
            If this is no state of this version of torch.
        """
        try:
            torch.set_rng_state(self.cpu)
            if self.gpu is not None and torch.device(device).type == "cuda":
                torch.cuda.set_rng_state(self.gpu, device)
        except (RuntimeError, TypeError) as fault:
            raise DialogueError(
                "random state", f"cannot be taken up ({fault})", "use the same version of torch"
            ) from None


@dataclass(frozen=True)
class KeptBatch:
    """A batch as the model heard it, and what else its loss depends on.

    Attributes
    ----------
    batch : DialogueBatch
        On the processor, with its waveforms or features after any augmentation.
    random_numbers : RandomNumbers
        Before the model drew any.
    epoch, step, process : int
        Where in the training it was: the batch of the epoch, from 1, and the process, from 0.
    settings : dict
        ``losses``, ``precision``, ``device`` and ``lr``; and ``emotions``, the labels of an emotion head.
    found : dict
        What was not finite, as plain values.
    """

    batch: DialogueBatch
    random_numbers: RandomNumbers
    epoch: int
    step: int
    process: int
    settings: dict[str, Any]
    found: dict[str, Any]

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"epoch{self.epoch}_step{self.step}" + (f"_process{self.process}" if self.process else "")

    @property
    def ids(self) -> list[str]:
        """Of its dialogues."""
        return [dialogue.id for dialogue in self.batch.dialogues]

    def write(
        self, folder: Path, model: str | None, weights: Mapping[str, Tensor], head: Mapping[str, Tensor] | None
    ) -> Path:
        """Keep it in a folder of its name within this one, whole or not at all; one of that name is replaced.

        Arguments
        ---------
        folder : Path
        model : str or None
            The flat YAML of the model, where it is known.
        weights : mapping of str to Tensor
            The trained weights before the batch.
        head : mapping of str to Tensor, or None
            Those of the emotion head.

        Raises
        ------
        DialogueError
            If it cannot be written.
        """
        place, beside = folder / self.name, folder / f".{self.name}.{os.getpid()}.part"
        make_folder(beside)
        try:
            _save(self._tensors(), beside / TENSORS_FILE)
            _save(weights, beside / WEIGHTS_FILE)
            if head is not None:
                _save(head, beside / HEAD_FILE)
            if model is not None:
                write_text(beside / MODEL_FILE, model)
            write_json(beside / BATCH_FILE, self._described())
            shutil.rmtree(place, ignore_errors=True)
            os.replace(beside, place)
        except OSError as fault:
            raise DialogueError(
                place, f"cannot be written ({fault.strerror})", "make room, or give another folder"
            ) from None
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return place

    @classmethod
    def read(cls, folder: str | Path) -> KeptBatch:
        """Read what ``write`` has written.

        Raises
        ------
        DialogueError
            If a file is missing or broken, or they do not fit one another.
        """
        folder = Path(folder)
        described, tensors = _described(folder / BATCH_FILE), _loaded(folder / TENSORS_FILE)
        try:
            dialogues = [_dialogue(value) for value in described["dialogues"]]
            batch = _batch(dialogues, tensors)
            numbers = RandomNumbers(tensors["random_cpu"], tensors.get("random_gpu"))
            place = (int(described[name]) for name in ("epoch", "step", "process"))
            return cls(batch, numbers, *place, _settings(described["settings"]), dict(described["found"]))
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            raise DialogueError(folder, f"is no kept batch ({type(fault).__name__}: {fault})", MEND) from None

    def _tensors(self) -> dict[str, Tensor]:
        batch = self.batch
        held = {"turns_per_dialogue": batch.turns_per_dialogue, "is_speaker": batch.is_speaker}
        if batch.features is not None:
            held |= {"features": batch.features[0], "frames": batch.features[1]}
        if batch.waveforms is not None:
            held |= {"waveforms": batch.waveforms, "wav_lens": batch.wav_lens}
        held["random_cpu"] = self.random_numbers.cpu
        if self.random_numbers.gpu is not None:
            held["random_gpu"] = self.random_numbers.gpu
        return held

    def _described(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "epoch": self.epoch,
            "step": self.step,
            "process": self.process,
            "found": self.found,
            "settings": self.settings,
            "dialogues": [_plain(dialogue) for dialogue in self.batch.dialogues],
        }


def _plain(dialogue: Dialogue) -> dict[str, Any]:
    """As JSON holds it."""
    return json.loads(json.dumps(asdict(dialogue), default=str))


def _dialogue(value: dict[str, Any]) -> Dialogue:
    response = None if value["response"] is None else _turn(value["response"])
    return Dialogue(**{**value, "history": tuple(map(_turn, value["history"])), "response": response})


def _turn(value: dict[str, Any]) -> Turn:
    if value["role"] not in ROLES or not isinstance(value["text"], str):
        raise ValueError(f"a turn of {value['role']!r}")
    return Turn(**{**value, "audio": None if value["audio"] is None else Path(value["audio"])})


def _settings(value: dict[str, Any]) -> dict[str, Any]:
    if value["precision"] not in PRECISIONS:
        raise ValueError(f"a precision of {value['precision']!r}")
    weights = {name: weight for name, weight in value["losses"].items() if name != "direction"}
    if not all(isinstance(weight, int | float) for weight in weights.values()):
        raise ValueError(f"losses of {weights}")
    return value


def _batch(dialogues: list[Dialogue], tensors: Mapping[str, Tensor]) -> DialogueBatch:
    counts, is_speaker = tensors["turns_per_dialogue"], tensors["is_speaker"]
    turns = sum(map(len, dialogues))
    if counts.tolist() != [len(dialogue) for dialogue in dialogues] or is_speaker.shape != (turns,):
        raise ValueError("its dialogues have other turns than its tensors")
    heard, lengths, features = tensors.get("waveforms"), tensors.get("wav_lens"), None
    if "features" in tensors:
        features = tensors["features"], tensors["frames"]
    for values, sizes, axes in ((heard, lengths, 2), (*(features or (None, None)), 3)):
        if values is not None and (values.dim() != axes or len(values) != turns or sizes.shape != (turns,)):
            raise ValueError("its dialogues have other turns than its tensors")
    if heard is None and features is None:
        raise ValueError("it holds neither waveforms nor features")
    return DialogueBatch(dialogues, heard, lengths, counts, is_speaker, features)


def _described(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise DialogueError(path, f"cannot be read ({getattr(fault, 'strerror', fault)})", MEND) from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise DialogueError(path, f"is not of format {FORMAT}", MEND)
    return value


def _loaded(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as fault:
        raise DialogueError(path, f"cannot be read ({fault})", MEND) from None


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        save_file({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as fault:
        raise DialogueError(path, f"cannot be written ({fault})", "make room, or give another folder") from None
