"""DialogueBatch: several dialogues, their turns flat and dialogue-major."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from es4r_toolkit.dialogue import Dialogue
from es4r_toolkit.errors import DialogueError
from es4r_toolkit.masks import relative_lengths


@dataclass(frozen=True)
class DialogueBatch:
    """What the pipeline takes.

    Attributes
    ----------
    dialogues : list of Dialogue
        B of them.
    waveforms : Tensor (N, samples)
        Every history turn, dialogue-major, oldest first, zero-padded.
    wav_lens : Tensor (N,)
        Relative lengths.
    turns_per_dialogue : Tensor (B,) of int
    is_speaker : Tensor (N,) of bool
    features : tuple of Tensor (N, T, F), Tensor (N,) of int, or None
        Log-mels of the waveforms and their frames, where they were computed already.
    """

    dialogues: list[Dialogue]
    waveforms: Tensor
    wav_lens: Tensor
    turns_per_dialogue: Tensor
    is_speaker: Tensor
    features: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, dialogues: Sequence[Dialogue], waveforms: Sequence[Sequence[Tensor]]) -> DialogueBatch:
        """Collate dialogues and the waveforms (samples,) of each history turn.

        Raises
        ------
        DialogueError
            If a dialogue has not one waveform a turn.
        """
        for dialogue, turns in zip(dialogues, waveforms):
            if len(dialogue) != len(turns) or not turns:
                raise DialogueError(dialogue.id, f"has {len(dialogue)} turns and {len(turns)} recordings", "give both")
        flat = [waveform for turns in waveforms for waveform in turns]
        counts = torch.tensor([len(waveform) for waveform in flat])
        return cls(
            dialogues=list(dialogues),
            waveforms=pad_sequence(flat, batch_first=True),
            wav_lens=relative_lengths(counts),
            turns_per_dialogue=torch.tensor([len(turns) for turns in waveforms]),
            is_speaker=torch.tensor([turn.is_speaker for dialogue in dialogues for turn in dialogue.history]),
        )

    def __len__(self) -> int:
        return len(self.dialogues)

    def to(self, device: torch.device | str) -> DialogueBatch:
        """The same batch on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def pin_memory(self) -> DialogueBatch:
        """The same batch in page-locked memory."""
        pinned = {name: value.pin_memory() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **pinned)
