"""What the invariance tests share: dialogues as frames and as samples, and comparisons."""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st

from es4r_toolkit.masks import frame_counts, relative_lengths

few = settings(max_examples=12, deadline=None)
many = settings(max_examples=40, deadline=None)
WIDTH, HEADS = 8, 2

# Frames of each turn, by dialogue.
dialogues = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=4)


def frames_of(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flat(counts: list[list[int]], order=None, extra=0):
    """Turns (N, T, F), lengths (N,) and sizes (B,); ``extra`` frames of rubbish as padding."""
    chosen = range(len(counts)) if order is None else order
    turns = [frames_of(count, 50 * index + place) for index in chosen for place, count in enumerate(counts[index])]
    longest = max(map(len, turns)) + extra
    padded = torch.full((len(turns), longest, WIDTH), 1e3, dtype=torch.float64)
    for row, turn in zip(padded, turns):
        row[: len(turn)] = turn
    lens = relative_lengths(torch.tensor([len(turn) for turn in turns]), longest)
    return padded, lens, torch.tensor([len(counts[index]) for index in chosen])


def rows(sequence: torch.Tensor, lens: torch.Tensor) -> list[torch.Tensor]:
    """The valid part of each row; what lies behind it must be zero."""
    counts = frame_counts(lens, sequence.shape[1]).tolist()
    assert all((row[count:] == 0).all() for row, count in zip(sequence, counts))
    return [row[:count].detach() for row, count in zip(sequence, counts)]


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


# -- whole pipelines ---------------------------------------------------------------------------------------------------

SWITCHES = {
    "paper": {"preset": "paper"},
    "plus": {"preset": "plus"},
    "plus, injected": {"preset": "plus", "placement": "inject"},
    "paper, injected": {"preset": "paper", "placement": "inject"},
    "plus, injected, by turn": {"preset": "plus", "placement": "inject", "positions": "turns"},
    "paper, by turn": {"preset": "paper", "positions": "turns"},
}
# Samples of each turn, by dialogue: from a single sample to 1.5 s, above the tiny encoder's window of 1 s.
spoken = st.lists(
    st.lists(st.one_of(st.integers(1, 900), st.integers(901, 24000)), min_size=1, max_size=3), min_size=1, max_size=3
)
LENGTHS = [[3000, 900, 5000], [800], [2100, 4000]]


def valid_rows(context):
    """Embeddings and LoRA positions of each prompt, without padding."""
    parts = zip(context.embeds, context.valid, context.adapted)
    return [(row[valid].detach(), adapted[valid]) for row, valid, adapted in parts]
