"""TurnStore: what is made of single turns, on disk, each computed once."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from es4r_toolkit.data.audio import load_turn
from es4r_toolkit.data.recordings import Part, Progress, unseen
from es4r_toolkit.dialogue import Dialogue, Turn
from es4r_toolkit.errors import AudioError, BackendError, ConfigError, DialogueError

FORMAT = 1
MAKE_AGAIN = "delete it: the next run makes it again"


class Kept(NamedTuple):
    """What was made of a turn: tensors on the processor, and remarks."""

    tensors: dict[str, Tensor]
    remarks: dict[str, str]


class TurnStore(ABC):
    """A folder of safetensors files, one a turn, named by what the recording holds and how they were made.

    Files are written beside their places and renamed, so several processes may write at once and one that is killed
    leaves whole files only. Renamed or moved recordings are found again, changed ones are not taken for the old.

    Arguments
    ---------
    folder : str or Path
        One for all ways of making; each has its own in it.
    settings : mapping
        Everything that what is made depends on, beside the recording; JSON ready.
    sample_rate : int
        Of the waveforms that it is made of (Hz).
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], sample_rate: int):
        written = json.dumps({"format": FORMAT, **settings}, sort_keys=True)
        self.folder = Path(folder) / hashlib.blake2b(written.encode(), digest_size=8).hexdigest()
        self.settings, self.sample_rate = dict(settings), sample_rate
        self._digests: dict[tuple[Path, int, int], bytes] = {}

    # What a file has one of, among its tensors or its remarks.
    names: tuple[str, ...]

    @abstractmethod
    def make(self, waveform: Tensor) -> Kept:
        """What is kept of a turn, made of its waveform (samples,)."""

    def get(self, turn: Turn, device: torch.device | str = "cpu", waveform: Tensor | None = None) -> Kept:
        """What is kept of a turn; where nothing is, it is made and kept.

        Arguments
        ---------
        turn : Turn
            With its recording.
        device : torch.device or str
            Where it is made.
        waveform : Tensor (samples,), optional
            The recording at ``sample_rate``, where it was decoded already.

        Raises
        ------
        AudioError
            If the recording cannot be used.
        BackendError
            If what is kept is broken.
        DialogueError
            If nothing can be written.
        """
        path = self.path(turn)
        if path.is_file():
            return read_kept(path, self.names)
        waveform = load_turn(turn, self.sample_rate) if waveform is None else waveform
        return self._keep(path, waveform.to(device))

    def fill(
        self, dialogues: Iterable[Dialogue], device: torch.device | str, workers: int = 0, progress: Progress = unseen
    ) -> None:
        """Make what is not there yet of every history turn.

        Arguments
        ---------
        dialogues : iterable of Dialogue
        device : torch.device or str
            Where it is made.
        workers : int
            Processes that decode.
        progress : callable
            Wraps the turns, given ``unit`` and ``total`` too.

        Raises
        ------
        AudioError
            If a recording cannot be used.
        DialogueError
            If nothing can be written.
        """
        places = {part: (self.path(turn), turn) for part, turn in _turns(dialogues).items()}
        missing = {path: turn for path, turn in places.values() if not path.is_file()}
        if not missing:
            return
        recordings = _Recordings(list(missing.values()), self.sample_rate)
        loader = DataLoader(recordings, batch_size=None, num_workers=workers)
        for path, waveform in zip(missing, progress(loader, unit="turn", total=len(missing))):
            self._keep(path, waveform.to(device))

    def paths(self, dialogues: Iterable[Dialogue]) -> dict[Part, Path]:
        """Where that of each history turn is."""
        return {part: self.path(turn) for part, turn in _turns(dialogues).items()}

    def path(self, turn: Turn) -> Path:
        """Where that of a turn is, or will be.

        Raises
        ------
        AudioError
            If it has no recording, or one that cannot be read.
        """
        if turn.audio is None:
            raise AudioError(f"a turn of the {turn.role}", "has no recording", "give its file")
        content = self._digest(turn.audio) + repr((turn.start, turn.stop)).encode()
        name = hashlib.blake2b(content, digest_size=16).hexdigest()
        # File systems grow slow where a folder has hundreds of thousands of files.
        return self.folder / name[:2] / f"{name[2:]}.safetensors"

    def _keep(self, path: Path, waveform: Tensor) -> Kept:
        # What is kept must not depend on the precision that the rest is computed in.
        with torch.autocast(waveform.device.type, enabled=False):
            tensors, remarks = self.make(waveform)
        made = Kept({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, remarks)
        settings = self.folder / "settings.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not settings.is_file():
                text = json.dumps(self.settings, indent=2, ensure_ascii=False) + "\n"
                _write(settings, lambda beside: beside.write_text(text, encoding="utf-8"))
            _write(path, lambda beside: save_file(made.tensors, beside, made.remarks))
        except (OSError, SafetensorError) as fault:
            raise DialogueError(path, f"cannot be written ({fault})", "make room, or give another folder") from None
        return made

    def _digest(self, recording: Path) -> bytes:
        """Of what a file holds; read once however many turns are parts of it."""
        try:
            found = recording.stat()
            version = recording, found.st_size, found.st_mtime_ns
            if version not in self._digests:
                with recording.open("rb") as file:
                    self._digests[version] = hashlib.file_digest(file, "blake2b").digest()
        except OSError as fault:
            mend = "correct the path, or put the recording there"
            raise AudioError(recording, f"cannot be read ({fault.strerror})", mend) from None
        return self._digests[version]


def settings_of(backend: object, name: str) -> dict[str, Any]:
    """What a back end says that its vectors depend on.

    Raises
    ------
    ConfigError
        If it says nothing.
    """
    settings = getattr(backend, name, None)
    if settings is None:
        raise ConfigError("feature_store", f"{type(backend).__name__} states no {name}", "leave the store off")
    return settings


def part_of(turn: Turn) -> Part:
    """What of which file a turn is."""
    return turn.audio, turn.start, turn.stop


def read_kept(path: Path, names: Sequence[str]) -> Kept:
    """Read a file of a store, which has one of some names among its tensors or its remarks.

    Raises
    ------
    BackendError
        If it is gone or broken, or has none.
    """
    try:
        with safe_open(path, "pt") as file:
            held = file.keys()
            kept = Kept({name: file.get_tensor(name) for name in held}, file.metadata() or {})
    except (SafetensorError, OSError) as fault:
        raise BackendError(path, f"cannot be read ({fault})", MAKE_AGAIN) from None
    if not any(name in kept.tensors or name in kept.remarks for name in names):
        raise BackendError(path, f"holds no {' and no '.join(names)}", MAKE_AGAIN)
    return kept


def _turns(dialogues: Iterable[Dialogue]) -> dict[Part, Turn]:
    return {part_of(turn): turn for dialogue in dialogues for turn in dialogue.history}


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """A whole file or none, whoever else writes the same."""
    beside = path.with_suffix(f".{secrets.token_hex(4)}.part")
    write(beside)
    os.replace(beside, path)


class _Recordings(torch.utils.data.Dataset):
    def __init__(self, turns: Sequence[Turn], sample_rate: int):
        self.turns, self.sample_rate = turns, sample_rate

    def __len__(self) -> int:
        return len(self.turns)

    def __getitem__(self, index: int) -> Tensor:
        return load_turn(self.turns[index], self.sample_rate)
