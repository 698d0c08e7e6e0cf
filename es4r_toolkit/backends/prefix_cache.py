"""PrefixCache: what a language model has read already is not read again."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


class PrefixCache:
    """Keys and values of the last context of one conversation, for the positions that the next one begins with.

    Which these are is found by comparing the embeddings and where adapters were active, so that a context that was
    changed anywhere is read anew from there on. A reply that was broken off in the middle of a layer costs the whole.

    Arguments
    ---------
    config : PreTrainedConfig
        Of the language model; one whose layers forget what is far away has nothing to give back.
    """

    def __init__(self, config: PreTrainedConfig):
        self.config = config
        self._cache: DynamicCache | None = None
        self._embeds: Tensor | None = None
        self._adapted: Tensor | None = None

    def start(self, embeds: Tensor, adapted: Tensor | None) -> tuple[DynamicCache, int]:
        """Begin a context.

        Arguments
        ---------
        embeds : Tensor (B, P, D)
        adapted : Tensor (B, P) of bool, or None
            Where adapters are active.

        Returns
        -------
        DynamicCache
            To be filled with the positions after those that it holds.
        int
            How many those are, P - 1 at most: the last one is always read, since its logits are wanted.
        """
        if adapted is None:
            adapted = torch.zeros(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        known = self._known(embeds, adapted)
        if known:
            self._cache.crop(known - self._cache.get_seq_length())
        else:
            self._cache = DynamicCache(config=self.config)
        self._embeds, self._adapted = embeds.detach(), adapted
        return self._cache, known

    def _known(self, embeds: Tensor, adapted: Tensor) -> int:
        if self._cache is None or len(embeds) != len(self._embeds):
            return 0
        # Layers of a sliding window or of linear attention have let go of what came before.
        held = {layer.get_seq_length() if type(layer) is DynamicLayer else 0 for layer in self._cache.layers}
        shared = min(embeds.shape[1] - 1, self._embeds.shape[1], *held)
        if shared < 1 or len(held) > 1:
            return 0
        same = (embeds[:, :shared] == self._embeds[:, :shared]).all(dim=2) & (
            adapted[:, :shared] == self._adapted[:, :shared]
        )
        return int(same.all(dim=0).long().cumprod(dim=0).sum())
