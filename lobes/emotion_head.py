"""EmotionHead: which emotion a turn is spoken with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from es4r_toolkit.errors import require
from es4r_toolkit.lobes.pooling import AcrossTurnsNorm, StatisticsPooling

UNLABELLED = -100  # what torch's cross-entropy leaves out


class EmotionHead(nn.Module):
    """A classifier over the attended frames of each turn, for an auxiliary loss where a corpus has labels (ours).

    Mean and deviation over the turn, normalised across turns, then Linear.
    ES4R learns without labels.

    Arguments
    ---------
    input_size : int
        Width F of a frame.
    labels : sequence of str
        The emotions told apart, two at least.

    Raises
    ------
    ConfigError
        If there are fewer than two labels, or one stands twice.

    Example
    -------
    >>> import torch
    >>> head = EmotionHead(input_size=80, labels=["anger", "joy", "sadness"])
    >>> head(torch.rand(2, 10, 80), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 3])
    >>> head.targets(["joy", None, "envy"]).tolist()    # what has no label or an unknown one is left out of the loss
    [1, -100, -100]
    """

    def __init__(self, input_size: int, labels: Sequence[str]):
        super().__init__()
        require(len(set(labels)) == len(labels) > 1, "labels", list(labels), "must be two or more, each once")
        self.labels = tuple(labels)
        self.pooling, self.norm = StatisticsPooling(), AcrossTurnsNorm(2 * input_size)
        self.classifier = nn.Linear(2 * input_size, len(labels))

    def forward(self, frames: Tensor, lens: Tensor) -> Tensor:
        """Attended frames (N, T, F), relative lengths (N,) -> logits (N, labels)."""
        return self.classifier(self.norm(self.pooling(frames, lens)))

    def targets(self, emotions: Sequence[str | None]) -> Tensor:
        """The place of each emotion among the labels (N,), UNLABELLED where it has none."""
        places = {label: place for place, label in enumerate(self.labels)}
        found = [places.get(emotion, UNLABELLED) for emotion in emotions]
        return self.classifier.weight.new_tensor(found, dtype=torch.long)
