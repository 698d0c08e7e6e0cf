"""DialogueNorm: what is the same throughout a dialogue is taken out before affect is modelled."""

from __future__ import annotations

from torch import Tensor, nn

from es4r_toolkit.masks import sum_by_dialogue, valid_mask


class DialogueNorm(nn.Module):
    """Each mel bin less its mean over all turns of the dialogue (ours).

    Cepstral mean normalisation (Atal, JASA 1974) over a dialogue in place of
    an utterance: channel and recording gain, and much of who speaks, go; how
    one turn differs from the others stays, which over single turns would go too.

    Example
    -------
    >>> import torch
    >>> mels = torch.tensor([[[1.0], [3.0]], [[5.0], [0.0]]])
    >>> DialogueNorm()(mels, torch.tensor([2, 1]), torch.tensor([2])).tolist()
    [[[-2.0], [0.0]], [[2.0], [0.0]]]
    """

    def forward(self, mels: Tensor, counts: Tensor, turns_per_dialogue: Tensor) -> Tensor:
        """Mels (N, T, F), valid frames (N,), turns of each dialogue (B,) -> mels (N, T, F), zero at padding."""
        valid = valid_mask(counts, mels.shape[1])[..., None]
        total = sum_by_dialogue(mels.masked_fill(~valid, 0.0).sum(dim=1), turns_per_dialogue)
        mean = total / sum_by_dialogue(counts, turns_per_dialogue).clamp(min=1)[:, None]
        return (mels - mean.repeat_interleave(turns_per_dialogue, dim=0)[:, None]).masked_fill(~valid, 0.0)
