"""Partial LoRA: low-rank updates that act only where a position mask says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from es4r_toolkit.errors import BackendError, ConfigError
from es4r_toolkit.unheard import unheard

# peft imports bitsandbytes where that is installed, which asks for a kernel that only 4-bit models on a CPU would use.
with unheard("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward"):
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners import lora


class PositionMask:
    """What is asked of each position, shared by all layers of one model.

    Attributes
    ----------
    rows : Tensor (M,) of int, or None
        Where the adapters are active, counted over the flattened batch.
    last : int or None
        How many positions at the end are read; None for all.
    """

    def __init__(self) -> None:
        self.rows: Tensor | None = None
        self.last: int | None = None
        self.last_rows: Tensor | None = None

    def set_to(self, positions: Tensor | None, last: int | None = None) -> Active:
        """Within the block be active at positions (B, P) of bool, nowhere for None, and read the last ones only."""
        if positions is None or not bool(positions.any()):
            return Active(self, None, last, None)
        # Where none of the last positions is adapted, the adapters' gradients there are zero and not missing.
        end = positions if last is None else positions[:, -last:]
        return self.at_rows(_rows(positions), last, _rows(end))

    def at_rows(self, rows: Tensor, last: int | None, last_rows: Tensor) -> Active:
        """The same from rows (M,) counted over the flattened batch, and over its last positions."""
        return Active(self, rows, last, last_rows)

    def as_now(self) -> Active:
        """Ask what is asked now, in blocks that are entered later."""
        return Active(self, self.rows, self.last, self.last_rows)

    def at_the_end(self) -> Active:
        """Within the block the layers see those last positions and no others."""
        return Active(self, self.last_rows, None, None)


class Active:
    """A block, which may be entered again, within which a position mask holds this."""

    def __init__(self, mask: PositionMask, *state: Any):
        self.mask, self.state, self.before = mask, state, []

    def __enter__(self) -> None:
        mask = self.mask
        self.before.append((mask.rows, mask.last, mask.last_rows))
        mask.rows, mask.last, mask.last_rows = self.state

    def __exit__(self, *_: object) -> None:
        self.mask.rows, self.mask.last, self.mask.last_rows = self.before.pop()


def _rows(positions: Tensor) -> Tensor:
    return positions.flatten().nonzero().squeeze(1)


class PartialLoraLinear(lora.Linear):
    """A peft LoRA layer that adds its update to the masked positions and leaves the others bit for bit.

    The update is computed for the masked rows alone, so that it costs what they need.
    """

    positions: PositionMask

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Inputs (B, P, in) -> outputs (B, P, out)."""
        result = self.base_layer(x, *args, **kwargs)
        rows = self.positions.rows
        if rows is None or self.disable_adapters:
            return result
        flat = x.flatten(0, -2).index_select(0, rows)
        update = result.new_zeros(len(rows), result.shape[-1])
        for name in self.active_adapters:
            if name in self.lora_A:
                inner = self.lora_A[name](self.lora_dropout[name](flat.to(self.lora_A[name].weight.dtype)))
                update = update + (self.lora_B[name](inner) * self.scaling[name]).to(result.dtype)
        return result.flatten(0, -2).index_add(0, rows, update).view_as(result)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: merged weights would act at every position.

        Raises
        ------
        BackendError
            Always.
        """
        raise BackendError("lora", "is active at speech positions only and cannot be merged", "keep it as an adapter")


def add_partial_lora(
    model: nn.Module,
    rank: int = 16,
    alpha: float = 16,
    dropout: float = 0.1,
    targets: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj"),
) -> PositionMask:
    """Put partial LoRA layers into a model, in place.

    Rank 16, alpha 16 and dropout 0.1 on the attention projections, active at
    the fused speech positions only, are ES4R's (its digest).

    Arguments
    ---------
    model : nn.Module
        Its weights should be frozen already; only the adapters are trained.
    rank : int
    alpha : float
        The update is scaled by alpha / rank.
    dropout : float
        On the update's input, in training.
    targets : sequence of str
        Names of the Linear layers.

    Returns
    -------
    PositionMask
        What switches them on.

    Raises
    ------
    ConfigError
        If a target names no Linear layer.
    """
    for target in targets:
        if not any(name.endswith(target) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)):
            raise ConfigError("lora targets", f"{target!r} names no Linear layer of {type(model).__name__}", "")
    positions = PositionMask()
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets))
    config._register_custom_module({nn.Linear: PartialLoraLinear})
    inject_adapter_in_model(config, model)
    for layer in model.modules():
        if isinstance(layer, PartialLoraLinear):
            layer.positions = positions
    # An optimizer loses small steps in half precision; the layer casts as it needs.
    for weight in lora_parameters(model).values():
        weight.data = weight.data.float()
    return positions


def lora_parameters(model: nn.Module) -> dict[str, torch.nn.Parameter]:
    """The adapters' weights by name."""
    return {name: weight for name, weight in model.named_parameters() if ".lora_" in name}
