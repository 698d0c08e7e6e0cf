"""SpeechQueryFusion: speech asks the text history."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from es4r_toolkit.errors import require
from es4r_toolkit.lobes.attention import MultiHeadAttention
from es4r_toolkit.masks import frame_counts, valid_mask


class SpeechQueryFusion(nn.Module):
    """Cross-attention with speech as query and text as key and value.

    ES4R (arXiv 2601.16225) Sec. 3.2, Eq. 5: ``E_fused = CrossAttn(Q = E_spch,
    K = V = E_text)``, at the language model's width and head count. The
    paper's form is ``residual=False``: what the speech itself says then only
    steers where the text is looked at. The default, pre-norm and residual,
    ``E_spch + CrossAttn(LayerNorm(E_spch), LayerNorm(E_text))``, is ours.

    Arguments
    ---------
    input_size : int
        Width D of both.
    num_heads : int
        Must divide ``input_size``.
    residual : bool
        Pre-norm residual, or bare.
    mode : str
        ``cross``, or ``none``: the speech passes as it is, for ablations.
    dropout : float
        On the attention weights.

    Example
    -------
    >>> fusion = SpeechQueryFusion(input_size=64, num_heads=4)
    >>> speech, text = torch.rand(2, 6, 64), torch.rand(2, 9, 64)
    >>> fused, weights = fusion(speech, text, text_lens=torch.tensor([1.0, 1 / 3]), return_weights=True)
    >>> fused.shape, weights.shape, bool((weights[1, :, 3:] == 0).all())
    (torch.Size([2, 6, 64]), torch.Size([2, 6, 9]), True)
    """

    def __init__(
        self, input_size: int, num_heads: int, residual: bool = True, mode: str = "cross", dropout: float = 0.0
    ):
        super().__init__()
        require(mode in ("cross", "none"), "mode", mode, "must be cross or none")
        self.attention = (
            MultiHeadAttention(input_size, num_heads, dropout, zero_init=residual) if mode == "cross" else None
        )
        residual = residual and mode == "cross"
        self.speech_norm = nn.LayerNorm(input_size) if residual else None
        self.text_norm = nn.LayerNorm(input_size) if residual else None

    def forward(
        self,
        speech: Tensor,
        text: Tensor,
        speech_lens: Tensor | None = None,
        text_lens: Tensor | None = None,
        return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """Fuse.

        Arguments
        ---------
        speech : Tensor (B, L, D)
        text : Tensor (B, T, D)
        speech_lens, text_lens : Tensor (B,), optional
            Relative lengths; all valid where left out.
        return_weights : bool
            Also return the attention weights, mean over heads.

        Returns
        -------
        fused : Tensor (B, L, D)
            Zero at padding.
        weights : Tensor (B, L, T) or None
            Where asked for; None in mode ``none``.

        Raises
        ------
        ConfigError
            If batch sizes or widths differ.
        """
        same = speech.shape[0] == text.shape[0] and speech.shape[2] == text.shape[2]
        require(same, "text", tuple(text.shape), f"must have the batch size and width of speech {tuple(speech.shape)}")
        if self.attention is None:
            fused, weights = speech, None
        elif self.speech_norm is None:
            fused, weights = self.attention(speech, text, _valid(text, text_lens), return_weights)
        else:
            query, key = self.speech_norm(speech), self.text_norm(text)
            fused, weights = self.attention(query, key, _valid(text, text_lens), return_weights)
            fused = speech + fused
        fused = fused.masked_fill(~_valid(speech, speech_lens)[..., None], 0.0)
        return (fused, weights) if return_weights else fused


def _valid(sequence: Tensor, lens: Tensor | None) -> Tensor:
    if lens is None:
        return torch.ones(sequence.shape[:2], dtype=torch.bool, device=sequence.device)
    return valid_mask(frame_counts(lens, sequence.shape[1]), sequence.shape[1])
