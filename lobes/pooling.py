"""From frames to one vector a turn: pooling over time, and normalisation across turns."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from es4r_toolkit.masks import frame_counts, valid_mask

TINY = 1e-10  # below this a variance is none


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over the valid frames (Snyder et al., ICASSP 2018).

    Example
    -------
    >>> frames = torch.tensor([[[1.0], [3.0], [9.0]], [[5.0], [9.0], [9.0]]])
    >>> StatisticsPooling()(frames, torch.tensor([2 / 3, 1 / 3])).round(decimals=2).tolist()
    [[2.0, 1.0], [5.0, 0.0]]
    """

    def forward(self, frames: Tensor, lens: Tensor) -> Tensor:
        """Frames (N, T, F), relative lengths (N,) -> (N, 2 F): means, then deviations; zeros without a frame."""
        counts = frame_counts(lens, frames.shape[1])
        valid, number = valid_mask(counts, frames.shape[1])[..., None], counts.clamp(min=1)[:, None]
        mean = frames.masked_fill(~valid, 0.0).sum(dim=1) / number
        apart = (frames - mean[:, None]).masked_fill(~valid, 0.0)
        # The root has an endless slope at zero: one frame alone must not give NaN to what is before it.
        variance = apart.square().sum(dim=1) / number
        deviation = variance.clamp(min=TINY).sqrt().masked_fill(variance <= TINY, 0.0)
        return torch.cat([mean, deviation], dim=1)


class AcrossTurnsNorm(nn.Module):
    """Batch normalisation of pooled turns that takes a single turn, which has no deviation, by the running statistics.

    Where several processes train, the turns of all of them are one batch. No
    subclass of torch's, since SpeechBrain would turn that into one for GPUs
    alone there.

    Arguments
    ---------
    input_size : int
        Width F.
    momentum : float
        Share of a batch in the running statistics.

    Example
    -------
    >>> norm = AcrossTurnsNorm(1)
    >>> norm(torch.tensor([[1.0], [3.0]])).detach().round().tolist()
    [[-1.0], [1.0]]
    """

    # Whether its turns are among those that the statistics of several processes are of.
    takes_part = True

    def __init__(self, input_size: int, momentum: float = 0.1):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(input_size)), nn.Parameter(torch.zeros(input_size))
        self.register_buffer("running_mean", torch.zeros(input_size))
        self.register_buffer("running_var", torch.ones(input_size))
        self.momentum, self.eps = momentum, 1e-5

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled turns (N, F) -> (N, F)."""
        several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        if self.training and several:
            return self._with_other_processes(pooled)
        statistics, by_batch = (self.running_mean, self.running_var), self.training and len(pooled) > 1
        return nn.functional.batch_norm(
            pooled, *statistics, self.weight, self.bias, by_batch, momentum=self.momentum, eps=self.eps
        )

    def _with_other_processes(self, pooled: Tensor) -> Tensor:
        # Not every build of torch has it.
        from torch.distributed.nn.functional import all_reduce

        values = pooled.to(torch.promote_types(pooled.dtype, torch.float32))
        share = float(self.takes_part)
        number = all_reduce(values.new_tensor(share * len(values)))
        if number < 2:
            mean, variance = self.running_mean, self.running_var
        else:
            mean = all_reduce(share * values.sum(dim=0)) / number
            variance = all_reduce(share * (values - mean).square().sum(dim=0)) / number
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * number / (number - 1), self.momentum)
        normalized = (values - mean) * (variance + self.eps).rsqrt()
        return (normalized * self.weight + self.bias).to(pooled.dtype)
