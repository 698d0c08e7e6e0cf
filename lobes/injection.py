"""GatedInjection: give the encoder its own mel, and affect beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from es4r_toolkit.errors import require
from es4r_toolkit.masks import frame_counts, valid_mask


class GatedInjection(nn.Module):
    """Add attended frames, upsampled, to the log-mel of each turn through a gate that starts at zero.

    A pretrained encoder so starts from exactly what it knows (ours: the
    ``inject`` placement). The gate is one number a mel bin.

    Arguments
    ---------
    input_size : int
        Mel bins F.

    Example
    -------
    >>> mels, lens = torch.rand(2, 16, 80), torch.tensor([1.0, 0.5])
    >>> attended = torch.rand(2, 2, 80)
    >>> bool((GatedInjection(80)(mels, lens, attended, torch.tensor([2, 1])) == mels).all())
    True
    """

    def __init__(self, input_size: int):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(input_size))

    def forward(self, mels: Tensor, lens: Tensor, attended: Tensor, counts: Tensor) -> Tensor:
        """Inject.

        Arguments
        ---------
        mels : Tensor (N, T, F)
        lens : Tensor (N,)
            Relative lengths of the mels.
        attended : Tensor (N, T', F)
        counts : Tensor (N,) of int
            Valid frames of ``attended``, at least one a turn.

        Returns
        -------
        Tensor (N, T, F)
            The mels, each frame with the attended frame of its place in the turn added.
        """
        require(bool((counts >= 1).all()), "counts", counts.tolist(), "must be at least one a turn")
        frames = frame_counts(lens, mels.shape[1])
        place = torch.arange(mels.shape[1], device=mels.device)[None, :] * counts[:, None]
        index = torch.div(place, frames[:, None].clamp(min=1), rounding_mode="floor")
        index = torch.minimum(index, counts[:, None] - 1)
        added = attended.gather(1, index[..., None].expand(-1, -1, attended.shape[2]))
        added = added.masked_fill(~valid_mask(frames, mels.shape[1])[..., None], 0.0)
        return mels + self.gate * added
