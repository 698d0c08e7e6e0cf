"""The last layer of a language model, computed where its logits are read and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from es4r_toolkit.backends.partial_lora import PositionMask

# Parts of a layer that treat each position by itself, and that only queries and outputs pass through.
PARTS = ("self_attn.q_proj", "self_attn.o_proj", "mlp")


def read_last_only(model: nn.Module, positions: PositionMask) -> None:
    """Let the last layer leave out its queries, outputs and feed-forward wherever ``positions.last`` does not reach.

    Keys and values are computed everywhere, as attention needs them; no
    logit that is read changes. A layer whose parts have other names, or that
    stands in the model twice, stays as it is.
    """
    layers = list(getattr(model.base_model, "layers", ()))
    if not layers or Counter(map(id, layers))[id(layers[-1])] > 1:
        return
    for name, part in layers[-1].named_modules():
        if name in PARTS:
            part.forward = _at_the_end(part.forward, positions)


def _at_the_end(forward: Callable[..., Any], positions: PositionMask) -> Callable[..., Any]:
    def run(x: Tensor, *inputs: Any, **options: Any) -> Any:
        last = positions.last
        if last is None or x.dim() != 3 or last >= x.shape[1]:
            return forward(x, *inputs, **options)
        with positions.at_the_end():
            output = forward(x[:, -last:].contiguous(), *inputs, **options)
        before = (0, 0, x.shape[1] - last, 0)
        if isinstance(output, Tensor):
            return functional.pad(output, before)
        # A mixture of experts also tells how it was routed.
        return functional.pad(output[0], before), *output[1:]

    return run
