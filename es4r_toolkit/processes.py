"""Several processes that train one model: which of them this one is, and means over what all of them saw."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed


def place() -> tuple[int, int]:
    """This process's place among those that train together, from 0, and how many there are.

    Example
    -------
    >>> place()
    (0, 1)
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def means_of_all(means: Mapping[str, Tensor], counts: Mapping[str, Tensor | int]) -> dict[str, Tensor]:
    """Means over the items of all processes, from each one's own.

    Gradients are averaged over the processes, each of which may hold another
    number of items: the mean of their means would weigh an item by the batch
    it is in. What comes back has the mean over all items as its value, the
    same in every process, and a gradient whose average is that mean's.

    Arguments
    ---------
    means : mapping of str to Tensor ()
        Over the items of this process.
    counts : mapping of str to int or Tensor ()
        How many items each is the mean of; with none of them here, it counts for nothing.

    Returns
    -------
    dict of str to Tensor ()

    Example
    -------
    >>> means_of_all({"cross_entropy": torch.tensor(2.0)}, {"cross_entropy": 7})
    {'cross_entropy': tensor(2.)}
    """
    _, processes = place()
    if processes == 1:
        return dict(means)
    names = list(means)
    own = torch.stack([means[name].detach().double() for name in names])
    number = own.new_tensor([int(counts[name]) for name in names])
    # Two rows: sums and numbers of items.
    every = torch.stack([own * number, number])
    distributed.all_reduce(every)
    values, numbers = every[0] / every[1].clamp(min=1), every[1].clamp(min=1)
    shared = {}
    for name, value, share in zip(names, values, processes * number / numbers):
        weighed = means[name] * share.to(means[name].dtype)
        shared[name] = weighed + (value.to(weighed.dtype) - weighed).detach()
    return shared
