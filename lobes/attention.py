"""MultiHeadAttention: the one attention that the other lobes are built on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from es4r_toolkit.errors import require
from es4r_toolkit.masks import attention_bias

# On a processor, torch's fused attention is slow below this head width, and in bfloat16 backwards at any width.
LEAST_WIDTH, LONGEST_PLAIN = 16, 1024


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention of several heads with a true key padding mask.

    Arguments
    ---------
    input_size : int
        Width D of queries, keys and values.
    num_heads : int
        Heads; must divide ``input_size``.
    dropout : float
        Dropout on the attention weights, in training.
    zero_init : bool
        Start with an output of zero, so that a residual branch begins as the identity (ours).

    Raises
    ------
    ConfigError
        If ``num_heads`` does not divide ``input_size``.

    Example
    -------
    >>> attention = MultiHeadAttention(80, 16)
    >>> query, key = torch.rand(2, 5, 80), torch.rand(2, 7, 80)
    >>> output, weights = attention(query, key, torch.ones(2, 7, dtype=torch.bool), return_weights=True)
    >>> output.shape, weights.shape
    (torch.Size([2, 5, 80]), torch.Size([2, 5, 7]))
    """

    def __init__(self, input_size: int, num_heads: int, dropout: float = 0.0, zero_init: bool = False):
        super().__init__()
        require(num_heads > 0 and input_size % num_heads == 0, "num_heads", num_heads, f"must divide {input_size}")
        require(0 <= dropout < 1, "dropout", dropout, "must lie in [0, 1)")
        self.num_heads, self.dropout = num_heads, dropout
        self.query = nn.Linear(input_size, input_size)
        self.key_value = nn.Linear(input_size, 2 * input_size)
        self.output = nn.Linear(input_size, input_size)
        for projection in (self.query, self.key_value):
            nn.init.xavier_uniform_(projection.weight)
        for projection in (self.query, self.key_value, self.output):
            nn.init.zeros_(projection.bias)
        if zero_init:
            nn.init.zeros_(self.output.weight)

    def forward(
        self, query: Tensor, key: Tensor, key_valid: Tensor, return_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Let each query look at the valid keys.

        Arguments
        ---------
        query : Tensor (B, L, D)
        key : Tensor (B, T, D)
            Keys and values.
        key_valid : Tensor (B, T) of bool
            True where a key may be looked at.
        return_weights : bool
            Also return the weights, averaged over the heads.

        Returns
        -------
        output : Tensor (B, L, D)
        weights : Tensor (B, L, T) or None
        """
        heads = (self.num_heads, -1)
        queries = self.query(query).unflatten(2, heads).transpose(1, 2)
        keys, values = (part.unflatten(2, heads).transpose(1, 2) for part in self.key_value(key).chunk(2, dim=2))
        bias = None if bool(key_valid.all()) else attention_bias(key_valid, queries.dtype)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(queries, keys, values, bias, dropout)
        output = self.output(mixed.transpose(1, 2).flatten(2))
        if not return_weights:
            return output, None
        scores = queries @ keys.transpose(2, 3) / queries.shape[-1] ** 0.5
        return output, torch.softmax(scores if bias is None else scores + bias, dim=-1).mean(dim=1)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention, computed in the way that is quickest where it runs (docs/performance.md).

    Arguments
    ---------
    query : Tensor (B, H, L, d)
    key, value : Tensor (B, H, T, d)
    bias : Tensor, optional
        Added to the scores, or a bool mask that is True where a key may be looked at; broadcast to (B, H, L, T).
        A query without a key gives some finite value, not always the same: it is padding.
    dropout : float
        On the weights.
    scale : float, optional
        Of the scores; 1 / sqrt(d) where left out.

    Returns
    -------
    Tensor (B, H, L, d)

    Example
    -------
    >>> query, key = torch.rand(1, 2, 5, 8), torch.rand(1, 2, 7, 8)
    >>> expected = functional.scaled_dot_product_attention(query, key, key)
    >>> torch.testing.assert_close(attend(query, key, key), expected)
    """
    width = query.shape[-1]
    scale = width**-0.5 if scale is None else scale
    if query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value, bias, dropout, scale=scale)
    if width < LEAST_WIDTH:
        return _attend_widened(query, key, value, bias, dropout, scale)
    half = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    if half == torch.bfloat16 and key.shape[2] <= LONGEST_PLAIN:
        return _attend_plainly(query, key, value, bias, dropout, scale)
    return functional.scaled_dot_product_attention(query, key, value, bias, dropout, scale=scale)


def _attend_widened(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float, scale: float
) -> Tensor:
    width, dtype = query.shape[-1], value.dtype
    with torch.autocast("cpu", enabled=False):
        wide = [functional.pad(_at_least_single(part), (0, LEAST_WIDTH - width)) for part in (query, key, value)]
        if bias is not None and bias.dtype != torch.bool:
            bias = bias.to(wide[0].dtype)
        mixed = functional.scaled_dot_product_attention(*wide, bias, dropout, scale=scale)
    return mixed[..., :width].to(dtype)


def _at_least_single(part: Tensor) -> Tensor:
    return part.float() if part.dtype in (torch.bfloat16, torch.float16) else part


def _attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float, scale: float
) -> Tensor:
    scores = (query * scale) @ key.transpose(2, 3)
    if bias is not None:
        # The least number, not minus infinity: a row of padding has no key, and must not become NaN.
        least = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~bias, least) if bias.dtype == torch.bool else scores + bias
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return functional.dropout(weights, dropout) @ value
