"""Where the time and the memory of a piece of work go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm"),
    "attention": ("_scaled_dot_product",),
    "convolutions": ("convolution", "mkldnn_convolution", "_slow_conv"),
    "copies and casts": ("copy_", "_to_copy", "cat", "fill_", "clone"),
}
OTHER = "everything else"


def time_by_kind(work: Callable[[], object]) -> dict[str, float]:
    """Milliseconds of each kind of operator, under torch's profiler, which itself costs some per cent."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    spent = Counter(dict.fromkeys([*KINDS, OTHER], 0.0))
    for event in profiler.key_averages():
        spent[_kind(event.key)] += event.self_cpu_time_total / 1000
    return {kind: round(time, 1) for kind, time in spent.items()} | {"all": round(spent.total(), 1)}


def memory_mb(model: nn.Module, work: Callable[[], object]) -> dict[str, float]:
    """Megabytes of weights, of their gradients, and of what the work keeps for its backward pass."""
    weights = {weight.untyped_storage().data_ptr(): weight for weight in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    sizes = {
        "weights": sum(weight.untyped_storage().nbytes() for weight in weights.values()),
        "gradients": sum(weight.nbytes for weight in model.parameters() if weight.requires_grad),
        "kept_for_backward": sum(kept.values()),
    }
    return {name: round(size / 1e6, 1) for name, size in sizes.items()}


def _kind(operator: str) -> str:
    name = operator.removeprefix("aten::")
    return next((kind for kind, starts in KINDS.items() if name.startswith(starts)), OTHER)
