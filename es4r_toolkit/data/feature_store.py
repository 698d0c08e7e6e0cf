"""Features of turns on disk, each computed once: log-mels, or what a self-supervised encoder's convolutions give."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader

from es4r_toolkit.data.audio import load_turn
from es4r_toolkit.data.recordings import Part, Progress, unseen
from es4r_toolkit.data.responses import make_folder, write_json
from es4r_toolkit.dialogue import Dialogue, Turn
from es4r_toolkit.errors import BackendError, ConfigError
from es4r_toolkit.protocols import SpeechEncoder

FEATURES = "features"
FORMAT = 1


class FeatureStore:
    """A folder of features, a safetensors file a turn, named by what the recording holds and how they were made.

    Files are written beside their places and renamed, so several processes may write at once and one that is killed
    leaves whole files only. Renamed or moved recordings are found again, changed ones are not taken for the old.

    Arguments
    ---------
    folder : str or Path
        One for all encoders; each has its own in it.
    encoder : SpeechEncoder
        With ``feature_settings``, everything that its features depend on.

    Raises
    ------
    ConfigError
        If the encoder does not say what its features depend on.
    """

    def __init__(self, folder: str | Path, encoder: SpeechEncoder):
        settings = getattr(encoder, "feature_settings", None)
        if settings is None:
            raise ConfigError(
                "feature_store", f"{type(encoder).__name__} states no feature_settings", "leave the store off"
            )
        written = json.dumps({"format": FORMAT, **settings}, sort_keys=True)
        self.folder = Path(folder) / hashlib.blake2b(written.encode(), digest_size=8).hexdigest()
        self.settings, self.encoder = settings, encoder
        self._digests: dict[tuple[Path, int, int], bytes] = {}

    def fill(
        self, dialogues: Iterable[Dialogue], device: torch.device | str, workers: int = 0, progress: Progress = unseen
    ) -> None:
        """Compute the features of every history turn that are not there yet.

        Arguments
        ---------
        dialogues : iterable of Dialogue
        device : torch.device or str
            Where the encoder is.
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
        missing = {path: turn for part, (path, turn) in self._places(dialogues).items() if not path.is_file()}
        if not missing:
            return
        make_folder(self.folder)
        write_json(self.folder / "settings.json", self.settings)
        recordings = _Recordings(list(missing.values()), self.encoder.sample_rate)
        loader = DataLoader(recordings, batch_size=None, num_workers=workers)
        for path, waveform in zip(missing, progress(loader, unit="turn", total=len(missing))):
            features, _ = self.encoder.features(waveform[None].to(device), torch.ones(1, device=device))
            path.parent.mkdir(exist_ok=True)
            beside = path.with_suffix(f".{secrets.token_hex(4)}.part")
            save_file({FEATURES: features[0].cpu().contiguous()}, beside)
            os.replace(beside, path)

    def paths(self, dialogues: Iterable[Dialogue]) -> dict[Part, Path]:
        """Where the features of each history turn are."""
        return {part: path for part, (path, _) in self._places(dialogues).items()}

    def _places(self, dialogues: Iterable[Dialogue]) -> dict[Part, tuple[Path, Turn]]:
        turns = {_part(turn): turn for dialogue in dialogues for turn in dialogue.history}
        return {part: (self._path(part), turn) for part, turn in turns.items()}

    def _path(self, part: Part) -> Path:
        recording, start, stop = part
        name = hashlib.blake2b(self._digest(recording) + repr((start, stop)).encode(), digest_size=16).hexdigest()
        # File systems grow slow where a folder has hundreds of thousands of files.
        return self.folder / name[:2] / f"{name[2:]}.safetensors"

    def _digest(self, recording: Path) -> bytes:
        """Of what a file holds; read once however many turns are parts of it."""
        found = recording.stat()
        version = recording, found.st_size, found.st_mtime_ns
        if version not in self._digests:
            with recording.open("rb") as file:
                self._digests[version] = hashlib.file_digest(file, "blake2b").digest()
        return self._digests[version]


def load_features(path: Path) -> Tensor:
    """Features (T, F) of one turn.

    Raises
    ------
    BackendError
        If the file is gone or broken.
    """
    try:
        return load_file(path)[FEATURES]
    except (SafetensorError, OSError, KeyError) as fault:
        raise BackendError(path, f"cannot be read ({fault})", "delete it: the next run makes it again") from None


def load_history(dialogue: Dialogue, paths: Mapping[Part, Path]) -> list[Tensor]:
    """Features (T, F) of each history turn."""
    return [load_features(paths[_part(turn)]) for turn in dialogue.history]


def _part(turn: Turn) -> Part:
    return turn.audio, turn.start, turn.stop


class _Recordings(torch.utils.data.Dataset):
    def __init__(self, turns: Sequence[Turn], sample_rate: int):
        self.turns, self.sample_rate = turns, sample_rate

    def __len__(self) -> int:
        return len(self.turns)

    def __getitem__(self, index: int) -> Tensor:
        return load_turn(self.turns[index], self.sample_rate)
