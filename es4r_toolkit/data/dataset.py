"""Dialogues as a SpeechBrain dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speechbrain.dataio.dataset import DynamicItemDataset

from es4r_toolkit.data.audio import load_turn
from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.dialogue import Dialogue


def dialogue_dataset(dialogues: Sequence[Dialogue], sample_rate: int) -> DynamicItemDataset:
    """A dataset whose items hold a dialogue and the waveforms of its history.

    Arguments
    ---------
    dialogues : sequence of Dialogue
        With audio for every history turn.
    sample_rate : int
        Of the waveforms (Hz).
    """
    dataset = DynamicItemDataset({dialogue.id: {"dialogue": dialogue} for dialogue in dialogues})

    def load_turns(dialogue: Dialogue) -> list:
        return [load_turn(turn, sample_rate) for turn in dialogue.history]

    dataset.add_dynamic_item(load_turns, takes="dialogue", provides="waveforms")
    dataset.set_output_keys(["dialogue", "waveforms"])
    return dataset


def collate(items: Sequence[dict[str, Any]]) -> DialogueBatch:
    """Dataset items to a batch."""
    return DialogueBatch.of([item["dialogue"] for item in items], [item["waveforms"] for item in items])
