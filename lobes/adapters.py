"""Modality adapters: from the speech encoder's width and rate to the language model's."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from es4r_toolkit.lobes.pooling import AcrossTurnsNorm, StatisticsPooling
from es4r_toolkit.lobes.subsampling import ConvSubsampler
from es4r_toolkit.masks import frame_counts, relative_lengths, valid_mask


class ConvAdapter(nn.Module):
    """Gated convolutions, then a projection to the language model's width.

    ES4R as its digest has it: a convolutional subsampler, 8x, of inner width
    512. Kernel, gating and the closing LayerNorm and Linear are ours.

    Arguments
    ---------
    input_size : int
        Width of the speech encoder.
    output_size : int
        Width D of the language model.
    inner_size : int
        Width of the convolutions.
    strides : sequence of int
        Their product is the subsampling factor.
    kernel_size : int
        Odd.

    Example
    -------
    >>> import torch
    >>> adapter = ConvAdapter(input_size=128, output_size=64, inner_size=32)
    >>> positions, lens = adapter(torch.rand(2, 48, 128), torch.tensor([1.0, 0.5]))
    >>> positions.shape, lens
    (torch.Size([2, 6, 64]), tensor([1.0000, 0.5000]))
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        inner_size: int = 512,
        strides: Sequence[int] = (2, 2, 2),
        kernel_size: int = 5,
    ):
        super().__init__()
        self.subsampler = ConvSubsampler(input_size, inner_size, strides, kernel_size)
        self.norm = nn.LayerNorm(inner_size)
        self.projection = nn.Linear(inner_size, output_size)

    def forward(self, states: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, T, input_size), relative lengths (B,) -> (B, L, output_size), zero at padding, lengths (B,)."""
        hidden, counts = self.subsampler(states, frame_counts(lens, states.shape[1]))
        positions = self.projection(self.norm(hidden))
        valid = valid_mask(counts, positions.shape[1])
        return positions.masked_fill(~valid[..., None], 0.0), relative_lengths(counts, positions.shape[1])


class TurnAdapter(nn.Module):
    """One position a turn, from what was attended to before the encoder and what the encoder made of it (ours).

    Both are pooled to mean and deviation over the turn and normalised across
    turns, as ECAPA-TDNN does behind its pooling (Desplanques et al.,
    Interspeech 2020): a small number that differs from turn to turn counts as
    much as a large one. The attended frames go through Linear, GELU, Linear;
    the encoder's states are added through dropout and a Linear that starts at
    zero, since there are many more of their numbers and fewer of them tell how
    a turn was spoken. How something is said is a matter of whole turns, and
    one position a turn leaves the language model little to search; the words
    come to it as text.

    Arguments
    ---------
    frame_size : int
        Width of the attended frames: the encoder's mel bins.
    state_size : int
        Width of the speech encoder.
    output_size : int
        Width D of the language model.
    dropout : float
        Of the pooled states, in training.

    Example
    -------
    >>> import torch
    >>> adapter = TurnAdapter(frame_size=80, state_size=128, output_size=64)
    >>> lens = torch.tensor([1.0, 0.5])
    >>> adapter(torch.rand(2, 10, 80), lens, torch.rand(2, 40, 128), lens).shape
    torch.Size([2, 64])
    """

    def __init__(self, frame_size: int, state_size: int, output_size: int, dropout: float = 0.5):
        super().__init__()
        self.pooling = StatisticsPooling()
        self.frame_norm, self.state_norm = AcrossTurnsNorm(2 * frame_size), AcrossTurnsNorm(2 * state_size)
        self.frame_projection = nn.Sequential(
            nn.Linear(2 * frame_size, output_size), nn.GELU(), nn.Linear(output_size, output_size)
        )
        self.dropout = nn.Dropout(dropout)
        self.state_projection = nn.Linear(2 * state_size, output_size, bias=False)
        nn.init.zeros_(self.state_projection.weight)

    def forward(self, frames: Tensor, frame_lens: Tensor, states: Tensor, state_lens: Tensor) -> Tensor:
        """Adapt.

        Arguments
        ---------
        frames : Tensor (N, T, frame_size)
            Attended frames of each turn.
        frame_lens : Tensor (N,)
            Relative lengths.
        states : Tensor (N, S, state_size)
            Encoder states of each turn.
        state_lens : Tensor (N,)
            Relative lengths; a turn may have none.

        Returns
        -------
        Tensor (N, output_size)
        """
        manner = self.frame_norm(self.pooling(frames, frame_lens))
        content = self.state_norm(self.pooling(states, state_lens))
        return self.frame_projection(manner) + self.state_projection(self.dropout(content))
