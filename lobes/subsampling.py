"""ConvSubsampler: strided gated convolutions over padded sequences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from es4r_toolkit.errors import require
from es4r_toolkit.masks import valid_mask


class ConvSubsampler(nn.Module):
    """A stack of Conv1d + GLU, each dividing the frame rate by its stride.

    Padding is set to zero before every convolution, so that a sequence gives
    the same frames alone as in any batch.

    Arguments
    ---------
    input_size, channels : int
        Width of the input, and of every layer's output.
    strides : sequence of int
        One a layer.
    kernel_size : int
        Odd.

    Example
    -------
    >>> subsample = ConvSubsampler(80, 80, strides=(2, 2, 2))
    >>> frames, counts = subsample(torch.rand(2, 100, 80), torch.tensor([100, 17]))
    >>> frames.shape, counts
    (torch.Size([2, 13, 80]), tensor([13,  3]))
    """

    def __init__(self, input_size: int, channels: int, strides: Sequence[int] = (2, 2, 2), kernel_size: int = 5):
        super().__init__()
        require(kernel_size % 2 == 1, "kernel_size", kernel_size, "must be odd")
        require(len(strides) > 0 and min(strides) >= 1, "strides", strides, "must hold whole numbers of 1 or more")
        widths = [input_size, *[channels] * len(strides)]
        self.layers = nn.ModuleList(
            nn.Conv1d(width, 2 * channels, kernel_size, stride=stride, padding=kernel_size // 2)
            for width, stride in zip(widths, strides)
        )
        for layer in self.layers:
            # A closed-half gate halves its input: without this gain and zero biases three layers fade the signal
            # to a hundredth, and a following LayerNorm shows little but the biases.
            nn.init.normal_(layer.weight, std=2 / (layer.in_channels * kernel_size) ** 0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, frames: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (N, T, F) and frame counts (N,) -> (N, ceil(T / strides), channels) and counts (N,)."""
        hidden = frames.transpose(1, 2)
        for layer in self.layers:
            hidden = hidden.masked_fill(~valid_mask(counts, hidden.shape[2])[:, None, :], 0.0)
            hidden = functional.glu(layer(hidden), dim=1)
            counts = torch.div(counts + layer.stride[0] - 1, layer.stride[0], rounding_mode="floor")
        return hidden.transpose(1, 2), counts
