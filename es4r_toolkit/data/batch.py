"""DialogueBatch: several dialogues, their turns flat and dialogue-major."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from es4r_toolkit.data.heard import HeardTurn, TurnFrames
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
    waveforms : Tensor (N, samples) or None
        Every history turn, dialogue-major, oldest first, zero-padded; None where features stand for them.
    wav_lens : Tensor (N,) or None
        Relative lengths.
    turns_per_dialogue : Tensor (B,) of int
    is_speaker : Tensor (N,) of bool
    features : tuple of Tensor (N, T, F), Tensor (N,) of int, or None
        Log-mels of the waveforms and their frames, where they were computed already.
    frames : TurnFrames or None
        What follows from each turn's log-mels alone, where it was computed already.
    energies : Tensor (N,) or None
    styles : list of Tensor (S,) or None, or None
        Energy and style vector of each turn, where they were computed already.
    """

    dialogues: list[Dialogue]
    waveforms: Tensor | None
    wav_lens: Tensor | None
    turns_per_dialogue: Tensor
    is_speaker: Tensor
    features: tuple[Tensor, Tensor] | None = None
    frames: TurnFrames | None = None
    energies: Tensor | None = None
    styles: list[Tensor | None] | None = None

    @classmethod
    def of(cls, dialogues: Sequence[Dialogue], waveforms: Sequence[Sequence[Tensor]]) -> DialogueBatch:
        """Collate dialogues and the waveforms (samples,) of each history turn.

        Raises
        ------
        DialogueError
            If a dialogue has not one waveform a turn, or one of them has no sample.
        """
        counts = _counts(dialogues, waveforms)
        for dialogue, turns in zip(dialogues, waveforms):
            for place, waveform in enumerate(turns):
                if not len(waveform):
                    # Nothing but padding: there would be no frame to attend to.
                    raise DialogueError(dialogue.id, f"turn {place} has no sample", "leave the turn out")
        flat = [waveform for turns in waveforms for waveform in turns]
        lengths = torch.tensor([len(waveform) for waveform in flat])
        padded = pad_sequence(flat, batch_first=True)
        return cls(list(dialogues), padded, relative_lengths(lengths), counts, _is_speaker(dialogues))

    @classmethod
    def of_features(cls, dialogues: Sequence[Dialogue], features: Sequence[Sequence[Tensor]]) -> DialogueBatch:
        """Collate dialogues and the features (T, F) of each history turn.

        Raises
        ------
        DialogueError
            If a dialogue has not one a turn.
        """
        counts = _counts(dialogues, features)
        flat = [frames for turns in features for frames in turns]
        padded = pad_sequence(flat, batch_first=True), torch.tensor([len(frames) for frames in flat])
        return cls(list(dialogues), None, None, counts, _is_speaker(dialogues), padded)

    @classmethod
    def of_heard(cls, ids: Sequence[str], histories: Sequence[Sequence[HeardTurn]]) -> DialogueBatch:
        """Collate histories of turns that were heard one by one, and name each."""
        dialogues = [Dialogue(id, tuple(one.turn for one in history)) for id, history in zip(ids, histories)]
        batch = cls.of_features(dialogues, [[one.features for one in history] for history in histories])
        flat, device = [one for history in histories for one in history], batch.features[0].device
        frames = None
        if all(one.frames is not None for one in flat):
            counts = torch.cat([one.frames.counts for one in flat])
            parts = ([getattr(one.frames, part)[0] for one in flat] for part in ("before", "after"))
            frames = TurnFrames(*(pad_sequence(part, batch_first=True) for part in parts), counts)
        return replace(
            batch.to(device),
            frames=frames,
            energies=torch.stack([one.energy for one in flat]),
            styles=[one.style for one in flat],
        )

    def __len__(self) -> int:
        return len(self.dialogues)

    def to(self, device: torch.device | str) -> DialogueBatch:
        """The same batch on a device."""
        return self._each(lambda value: value.to(device))

    def pin_memory(self) -> DialogueBatch:
        """The same batch in page-locked memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> DialogueBatch:
        changed = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        if self.features is not None:
            changed["features"] = tuple(map(change, self.features))
        if self.frames is not None:
            changed["frames"] = TurnFrames(*map(change, self.frames))
        if self.styles is not None:
            changed["styles"] = [None if style is None else change(style) for style in self.styles]
        return replace(self, **changed)


def _counts(dialogues: Sequence[Dialogue], recordings: Sequence[Sequence[Tensor]]) -> Tensor:
    """Turns of each dialogue, each with its recording."""
    for dialogue, turns in zip(dialogues, recordings):
        if len(dialogue) != len(turns) or not turns:
            raise DialogueError(dialogue.id, f"has {len(dialogue)} turns and {len(turns)} recordings", "give both")
    return torch.tensor([len(turns) for turns in recordings])


def _is_speaker(dialogues: Sequence[Dialogue]) -> Tensor:
    return torch.tensor([turn.is_speaker for dialogue in dialogues for turn in dialogue.history])
