"""Relative lengths, masks and packing of batch-first sequences.

SpeechBrain's convention holds at every public border: a length is a float in
(0, 1], the share of the longest item. Inside, lengths are frame counts and a
mask is True where a frame is valid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from es4r_toolkit.errors import ConfigError


def frame_counts(relative: Tensor, max_len: int) -> Tensor:
    """Relative lengths (N,) to frame counts (N,).

    Example
    -------
    >>> frame_counts(torch.tensor([1.0, 0.5]), 4)
    tensor([4, 2])
    """
    return (relative.to(torch.float64) * max_len).round().long().clamp(0, max_len)


def relative_lengths(counts: Tensor, max_len: int | None = None) -> Tensor:
    """Frame counts (N,) to relative lengths (N,).

    Example
    -------
    >>> relative_lengths(torch.tensor([4, 2]))
    tensor([1.0000, 0.5000])
    """
    longest = counts.max() if max_len is None else max_len
    return counts.to(torch.float32) / longest


def valid_mask(counts: Tensor, max_len: int) -> Tensor:
    """Frame counts (N,) to a bool mask (N, max_len), True at valid frames.

    Example
    -------
    >>> valid_mask(torch.tensor([2, 1]), 2)
    tensor([[ True,  True],
            [ True, False]])
    """
    return torch.arange(max_len, device=counts.device)[None, :] < counts[:, None]


def attention_bias(valid: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A key mask (N, T) to an additive bias (N, 1, 1, T) for attention.

    A row without a valid key is left open, so that softmax stays finite; its
    output is padding and must be masked by the caller.

    Example
    -------
    >>> attention_bias(torch.tensor([[True, False]])).shape
    torch.Size([1, 1, 1, 2])
    """
    blocked = ~valid & valid.any(dim=1, keepdim=True)
    bias = torch.zeros(valid.shape, dtype=dtype, device=valid.device)
    return bias.masked_fill_(blocked, torch.finfo(dtype).min)[:, None, None, :]


def pack(frames: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Put rows of valid frames, already in order, into a padded batch.

    Arguments
    ---------
    frames : Tensor (M, ...)
        The frames of all rows, one row after the other.
    counts : Tensor (B,)
        How many frames each row takes; they sum to M.

    Returns
    -------
    padded : Tensor (B, L, ...)
        Zero at padding; L is the longest row.
    valid : Tensor (B, L)
        True where a frame stands.

    Example
    -------
    >>> pack(torch.tensor([1., 2., 3.]), torch.tensor([1, 2]))[0]
    tensor([[1., 0.],
            [2., 3.]])
    """
    valid = valid_mask(counts, int(counts.max()))
    padded = frames.new_zeros(*valid.shape, *frames.shape[1:])
    padded[valid] = frames
    return padded, valid


def sum_by_dialogue(values: Tensor, turns_per_dialogue: Tensor) -> Tensor:
    """Sum what each turn has, (N, ...), over each dialogue, giving (B, ...).

    Example
    -------
    >>> sum_by_dialogue(torch.tensor([1, 2, 3]), torch.tensor([2, 1]))
    tensor([3, 3])
    """
    owner = dialogue_of_turn(turns_per_dialogue)
    total = values.new_zeros(len(turns_per_dialogue), *values.shape[1:])
    return total.index_add_(0, owner, values)


def dialogue_of_turn(turns_per_dialogue: Tensor) -> Tensor:
    """The dialogue index of each turn, (B,) -> (N,).

    Example
    -------
    >>> dialogue_of_turn(torch.tensor([2, 1]))
    tensor([0, 0, 1])
    """
    index = torch.arange(len(turns_per_dialogue), device=turns_per_dialogue.device)
    return index.repeat_interleave(turns_per_dialogue)


def turn_recency(turns_per_dialogue: Tensor) -> Tensor:
    """How many turns ago each turn was spoken, (B,) -> (N,); 0 is the newest.

    Example
    -------
    >>> turn_recency(torch.tensor([2, 3]))
    tensor([1, 0, 2, 1, 0])
    """
    ends = turns_per_dialogue.cumsum(0)
    position = torch.arange(int(turns_per_dialogue.sum()), device=ends.device)
    return ends[dialogue_of_turn(turns_per_dialogue)] - 1 - position


def share_states(counts: Tensor, turns_per_dialogue: Tensor, states: Tensor) -> Tensor:
    """Share the states made of each dialogue's joined frames out to its turns, in proportion and in order.

    Arguments
    ---------
    counts : Tensor (N,) of int
        Frames of each turn.
    turns_per_dialogue : Tensor (B,) of int
    states : Tensor (B,) of int
        States of each dialogue.

    Returns
    -------
    Tensor (N,) of int
        They sum to ``states``; a very short turn may have none.

    Example
    -------
    >>> share_states(torch.tensor([4, 2, 3]), torch.tensor([2, 1]), torch.tensor([3, 2]))
    tensor([2, 1, 2])
    """
    owner = dialogue_of_turn(turns_per_dialogue)
    frames, available = sum_by_dialogue(counts, turns_per_dialogue)[owner], states[owner]
    ends = counts.cumsum(0)
    first_turn = (turns_per_dialogue.cumsum(0) - turns_per_dialogue)[owner]
    end = ends - (ends - counts)[first_turn]
    start_state, end_state = (
        torch.div(place * available + frames - 1, frames, rounding_mode="floor") for place in (end - counts, end)
    )
    return end_state - start_state


def check_turns(turns: Tensor, turn_lens: Tensor, turns_per_dialogue: Tensor) -> None:
    """Raise ConfigError unless turns, lengths and dialogue sizes agree."""
    if len(turns) != len(turn_lens):
        raise ConfigError("turn_lens", f"has {len(turn_lens)} entries for {len(turns)} turns", "give one per turn")
    if int(turns_per_dialogue.sum()) != len(turns) or bool((turns_per_dialogue < 1).any()):
        raise ConfigError(
            "turns_per_dialogue",
            f"is {turns_per_dialogue.tolist()} for {len(turns)} turns",
            "give at least one turn to each dialogue, in all as many as there are turns",
        )
