"""Dialogues as a SpeechBrain dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler, ReproducibleRandomSampler
from torch import Tensor

from es4r_toolkit.data.audio import load_turn
from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.data.feature_store import load_history
from es4r_toolkit.data.recordings import Part
from es4r_toolkit.dialogue import Dialogue
from es4r_toolkit.errors import require


def dialogue_dataset(
    dialogues: Sequence[Dialogue], sample_rate: int, features: Mapping[Part, Path] | None = None
) -> DynamicItemDataset:
    """A dataset whose items hold a dialogue and the waveforms of its history, or their features.

    Arguments
    ---------
    dialogues : sequence of Dialogue
        With audio for every history turn.
    sample_rate : int
        Of the waveforms (Hz).
    features : mapping, optional
        Where features lie, as `FeatureStore.paths` gives them; they stand for the waveforms then.
    """
    dataset = DynamicItemDataset({dialogue.id: {"dialogue": dialogue} for dialogue in dialogues})
    if features is None:
        # Nothing local: where processes are spawned and not forked, loaders get it pickled.
        dataset.add_dynamic_item(partial(_load_turns, sample_rate=sample_rate), takes="dialogue", provides="waveforms")
        dataset.set_output_keys(["dialogue", "waveforms"])
    else:
        dataset.add_dynamic_item(partial(load_history, paths=features), takes="dialogue", provides="features")
        dataset.set_output_keys(["dialogue", "features"])
    return dataset


def shuffled(dataset: DynamicItemDataset) -> ReproducibleRandomSampler:
    """Its dialogues in an order drawn anew each epoch, the same whatever the run's seed."""
    return ReproducibleRandomSampler(dataset)


def like_lengths(
    dataset: DynamicItemDataset, seconds: Sequence[float], most: float, buckets: int, seed: int
) -> DynamicBatchSampler:
    """Batches of dialogues of like length, of so many seconds of speech at most, drawn anew each epoch.

    Arguments
    ---------
    dataset : DynamicItemDataset
    seconds : sequence of float
        How long the history of each of its dialogues is.
    most : float
        Of a batch (seconds); a dialogue that is longer is a batch of its own.
    buckets : int
        How many classes of length; more leave less padding and mix dialogues less.
    seed : int

    Raises
    ------
    ConfigError
        If there are no buckets, or batches hold nothing.
    """
    require(most > 0, "max_batch_seconds", most, "must be positive")
    require(buckets > 0, "batch_buckets", buckets, "must be positive")
    # The sampler has no class for what is longer than a batch.
    lengths = [min(one, most) for one in seconds]
    return DynamicBatchSampler(dataset, most, buckets, lengths_list=lengths, shuffle=True, seed=seed)


def _load_turns(dialogue: Dialogue, sample_rate: int) -> list[Tensor]:
    return [load_turn(turn, sample_rate) for turn in dialogue.history]


def collate(items: Sequence[dict[str, Any]]) -> DialogueBatch:
    """Dataset items to a batch."""
    dialogues = [item["dialogue"] for item in items]
    if "features" in items[0]:
        return DialogueBatch.of_features(dialogues, [item["features"] for item in items])
    return DialogueBatch.of(dialogues, [item["waveforms"] for item in items])
