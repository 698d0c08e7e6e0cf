"""Features and styles of turns on disk: what a speech encoder makes of a waveform, and what a voice makes of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from es4r_toolkit.data.recordings import Part, Progress, unseen
from es4r_toolkit.data.turn_store import Kept, TurnStore, part_of, read_kept, settings_of
from es4r_toolkit.dialogue import Dialogue, Turn
from es4r_toolkit.errors import BackendError, require
from es4r_toolkit.protocols import SpeechEncoder, SpeechSynthesizer

logger = logging.getLogger(__name__)

FEATURES, STYLE, REASON = "features", "style", "no_style"


class FeatureStore(TurnStore):
    """Features of turns: log-mels, or what a self-supervised encoder's convolutions give.

    Arguments
    ---------
    folder : str or Path
        One for all encoders and voices; each has its own in it.
    encoder : SpeechEncoder
        With ``feature_settings``, everything that its features depend on.

    Raises
    ------
    ConfigError
        If the encoder does not say what its features depend on.
    """

    names = (FEATURES,)

    def __init__(self, folder: str | Path, encoder: SpeechEncoder):
        super().__init__(folder, settings_of(encoder, "feature_settings"), encoder.sample_rate)
        self.encoder = encoder

    def features(self, turn: Turn, device: torch.device | str = "cpu", waveform: Tensor | None = None) -> Tensor:
        """Features (T, F) of a turn, on the processor; arguments and errors as of ``get``."""
        return self.get(turn, device, waveform).tensors[FEATURES]

    @torch.no_grad()
    def make(self, waveform: Tensor) -> Kept:
        """Features of a waveform (samples,)."""
        features, _ = self.encoder.features(waveform[None], torch.ones(1, device=waveform.device))
        return Kept({FEATURES: features[0]}, {})


class StyleStore(TurnStore):
    """Style vectors that a voice makes of turns.

    A turn of which it makes none, as it holds too little speech, is remembered with the reason and not tried again; the
    log tells it whenever the turn is asked for.

    Arguments
    ---------
    folder : str or Path
        One for all encoders and voices; each has its own in it.
    voice : SpeechSynthesizer
        With a ``style_dim``, and ``style_settings``, everything that its style vectors depend on.
    sample_rate : int
        Of the waveforms that it is given to hear (Hz).

    Raises
    ------
    ConfigError
        If the voice has no styles, or does not say what they depend on.
    """

    names = (STYLE, REASON)

    def __init__(self, folder: str | Path, voice: SpeechSynthesizer, sample_rate: int):
        require(voice.style_dim is not None, "voice", type(voice).__name__, "must be one with style vectors")
        super().__init__(folder, {**settings_of(voice, "style_settings"), "sample_rate": sample_rate}, sample_rate)
        self.voice = voice

    def style(self, turn: Turn, device: torch.device | str = "cpu", waveform: Tensor | None = None) -> Tensor | None:
        """Style (S,) of a turn, on the processor, or None of one that has none; else as ``get``."""
        found = self.get(turn, device, waveform)
        if STYLE not in found.tensors:
            logger.warning("%s has no style: %s", turn.audio, found.remarks[REASON])
        return found.tensors.get(STYLE)

    def fill(
        self, dialogues: Iterable[Dialogue], device: torch.device | str, workers: int = 0, progress: Progress = unseen
    ) -> None:
        """As of every store; the log tells of how many turns there is no style."""
        dialogues = list(dialogues)
        super().fill(dialogues, device, workers, progress)
        if without := self.without_style(dialogues):
            (recording, *_), reason = next(iter(without.items()))
            logger.warning("%d turns have no style, the first of %s: %s", len(without), recording, reason)

    def without_style(self, dialogues: Iterable[Dialogue]) -> dict[Part, str]:
        """The history turns that are known to have no style, and why."""
        kept = {part: read_kept(path, self.names) for part, path in self.paths(dialogues).items() if path.is_file()}
        return {part: one.remarks[REASON] for part, one in kept.items() if STYLE not in one.tensors}

    @torch.no_grad()
    def make(self, waveform: Tensor) -> Kept:
        """Style of a waveform (samples,), or why there is none."""
        try:
            return Kept({STYLE: self.voice.style(waveform, self.sample_rate)}, {})
        except BackendError as fault:
            return Kept({}, {REASON: str(fault)})


def load_features(path: Path) -> Tensor:
    """Features (T, F) of one turn.

    Raises
    ------
    BackendError
        If the file is gone or broken.
    """
    return read_kept(path, FeatureStore.names).tensors[FEATURES]


def load_history(dialogue: Dialogue, paths: Mapping[Part, Path]) -> list[Tensor]:
    """Features (T, F) of each history turn."""
    return [load_features(paths[part_of(turn)]) for turn in dialogue.history]
