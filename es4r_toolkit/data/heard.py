"""HeardTurn: what is computed of one turn by itself, so that no later turn pays for it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from es4r_toolkit.dialogue import Turn


class TurnFrames(NamedTuple):
    """Downsampled frames of turns, before and after the attention within each turn.

    Attributes
    ----------
    before, after : Tensor (N, T, F)
    counts : Tensor (N,) of int
        Valid frames.
    """

    before: Tensor
    after: Tensor
    counts: Tensor


@dataclass(frozen=True)
class HeardTurn:
    """A turn, and all of it that does not depend on its dialogue.

    Attributes
    ----------
    turn : Turn
        With its words, read or written down by a recognizer.
    features : Tensor (T, F)
        Log-mels.
    frames : TurnFrames or None
        Of this one turn; None where they depend on the dialogue, as behind DialogueNorm.
    energy : Tensor ()
    style : Tensor (S,) or None
        None where the voice has no styles, or the turn too little speech.
    seconds : float
        Duration.
    """

    turn: Turn
    features: Tensor
    frames: TurnFrames | None
    energy: Tensor
    style: Tensor | None
    seconds: float
