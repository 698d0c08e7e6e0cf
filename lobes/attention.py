"""MultiHeadAttention: the one attention that the other lobes are built on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from es4r_toolkit.errors import require
from es4r_toolkit.masks import attention_bias


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
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, dropout_p=dropout)
        output = self.output(mixed.transpose(1, 2).flatten(2))
        if not return_weights:
            return output, None
        scores = queries @ keys.transpose(2, 3) / queries.shape[-1] ** 0.5
        return output, torch.softmax(scores if bias is None else scores + bias, dim=-1).mean(dim=1)
