"""A waveform at another sample rate, whatever the two are.

torch is imported where it is used, as in `es4r_toolkit.data.audio`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# torchaudio makes a kernel for the ratio, and eight times its size of memory; 16 MiB is past that of any usual rate.
LARGEST_KERNEL = 1 << 22


def resample(waveform: Tensor, source: int, target: int) -> Tensor:
    """A waveform (samples,) at ``source`` Hz as one at ``target`` Hz.

    Example
    -------
    >>> import torch
    >>> resample(torch.zeros(100), 8000, 16000).shape
    torch.Size([200])
    """
    if source == target:
        return waveform
    divisor = math.gcd(source, target)
    down, up = source // divisor, target // divisor
    if down * up > LARGEST_KERNEL:
        import torch
        from scipy.signal import resample_poly

        return torch.from_numpy(resample_poly(waveform.numpy(), up, down)).float()
    from torchaudio.functional import resample as resample_by_kernel

    return resample_by_kernel(waveform, source, target)
