"""MelDownsampler: fewer frames before affect is modelled."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from es4r_toolkit.lobes.subsampling import ConvSubsampler
from es4r_toolkit.masks import frame_counts, relative_lengths, valid_mask


class MelDownsampler(nn.Module):
    """Log-mel frames to an eighth as many frames of the same width.

    ES4R, released code: three Conv1d (kernel 5, stride 2, padding 2), each
    with a GLU, then a residual feed-forward with GELU and a LayerNorm.

    Arguments
    ---------
    input_size : int
        Mel bins F.
    strides : sequence of int
        One a convolution; their product is the factor.
    kernel_size : int
        Odd.

    Example
    -------
    >>> import torch
    >>> frames, lens = MelDownsampler(80)(torch.rand(2, 160, 80), torch.tensor([1.0, 0.5]))
    >>> frames.shape, lens
    (torch.Size([2, 20, 80]), tensor([1.0000, 0.5000]))
    """

    def __init__(self, input_size: int, strides: Sequence[int] = (2, 2, 2), kernel_size: int = 5):
        super().__init__()
        self.subsampler = ConvSubsampler(input_size, input_size, strides, kernel_size)
        self.feed_forward = nn.Sequential(
            nn.Linear(input_size, input_size), nn.GELU(), nn.Linear(input_size, input_size)
        )
        self.norm = nn.LayerNorm(input_size)

    def forward(self, mels: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Mels (N, T, F), relative lengths (N,) -> frames (N, T', F), zero at padding, relative lengths (N,)."""
        hidden, counts = self.subsampler(mels, frame_counts(lens, mels.shape[1]))
        hidden = self.norm(hidden + self.feed_forward(hidden))
        valid = valid_mask(counts, hidden.shape[1])
        return hidden.masked_fill(~valid[..., None], 0.0), relative_lengths(counts, hidden.shape[1])
