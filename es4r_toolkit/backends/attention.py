"""The attention that Hugging Face's models are run with here: sequences packed end to end, or a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from es4r_toolkit.lobes.attention import attend

PACKED, BATCHED, REHEARSED = "es4r_packed", "es4r_batched", "es4r_rehearsed"


def attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    counts: Sequence[int],
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Sequences of ``counts`` frames, end to end in (1, H, M, d), each looks at itself: -> (1, M, H, d)."""
    parts = zip(*(part.split(list(counts), dim=2) for part in (query, key, value)))
    return torch.cat([attend(*part, None, dropout, scaling) for part in parts], dim=2).transpose(1, 2), None


def attend_batched(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's own, but for bfloat16 on a processor: (B, H, L, d) -> (B, L, H, d)."""
    half = query.device.type == "cpu" and (
        query.dtype == torch.bfloat16
        or (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16)
    )
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    special = any(options.get(name) is not None for name in ("softcap", "position_bias", "cache"))
    if not half or not causal or special:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    length, past = query.shape[2], key.shape[2] - query.shape[2]
    if attention_mask is None and length > 1:
        attention_mask = torch.ones(length, length + past, dtype=torch.bool).tril(past)
    return attend(query, key, value, attention_mask, dropout, scaling).transpose(1, 2), None


class _Fused(torch.autograd.Function):
    """What a fused attention keeps for its backward pass: queries, keys, values, outputs and a sum for each query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output


def attend_rehearsed(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """For dry runs on the meta device, where torch's attention would keep all its weights: (B, H, L, d)."""
    return _Fused.apply(query, key, value).transpose(1, 2), None


def attend_here(model: PreTrainedModel) -> None:
    """Run a model with ``attend_batched``, where it would take torch's fused attention through the same interface."""
    if getattr(model, "_supports_attention_backend", False) and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(BATCHED)


AttentionInterface.register(PACKED, attend_packed)
AttentionInterface.register(BATCHED, attend_batched)
AttentionInterface.register(REHEARSED, attend_rehearsed)
AttentionMaskInterface.register(BATCHED, sdpa_mask)
AttentionMaskInterface.register(REHEARSED, sdpa_mask)
