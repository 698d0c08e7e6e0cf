"""StyleFuser: one speaking style for the reply from the styles of the dialogue."""

from __future__ import annotations

from torch import Tensor, nn

from es4r_toolkit.errors import require
from es4r_toolkit.masks import check_turns, dialogue_of_turn, sum_by_dialogue


class StyleFuser(nn.Module):
    """Weighted mean of the turns' style vectors, quieter turns counting more.

    ES4R (arXiv 2601.16225) Sec. 3.3, Eq. 10: ``s = sum_j w_j s_j`` with
    ``w_j`` proportional to ``1 / e_j``. A silent turn would take all the
    weight; it has no style to give, so here it takes none (ours). Where every
    turn is silent, all weigh the same.

    Arguments
    ---------
    silence : float
        A turn of less than this share of its dialogue's largest energy is silent.

    Example
    -------
    >>> import torch
    >>> styles = torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    >>> fused, weights = StyleFuser()(styles, torch.tensor([1.0, 3.0, 0.0]), torch.tensor([3]))
    >>> fused, weights
    (tensor([[0.7500, 0.2500]]), tensor([0.7500, 0.2500, 0.0000]))
    """

    def __init__(self, silence: float = 1e-3):
        super().__init__()
        require(0 < silence < 1, "silence", silence, "must lie in (0, 1)")
        self.silence = silence

    def weights(self, energies: Tensor, turns_per_dialogue: Tensor) -> Tensor:
        """Energies (N,) >= 0 and turns per dialogue (B,) -> weights (N,), summing to 1 in each dialogue."""
        check_turns(energies, energies, turns_per_dialogue)
        fit = energies.isfinite() & (energies >= 0)
        require(bool(fit.all()), "energies", energies.tolist(), "must be finite and not negative")
        owner = dialogue_of_turn(turns_per_dialogue)
        loudest = energies.new_zeros(len(turns_per_dialogue)).scatter_reduce_(0, owner, energies, "amax")[owner]
        voiced = (energies > 0) & (energies >= self.silence * loudest)
        # Scaled by the loudest turn, so that neither tiny nor huge energies overflow.
        inverse = (loudest / energies.masked_fill(~voiced, 1.0)).masked_fill(~voiced, 0.0)
        inverse = inverse.masked_fill(loudest == 0, 1.0)
        return inverse / sum_by_dialogue(inverse, turns_per_dialogue)[owner]

    def forward(self, styles: Tensor, energies: Tensor, turns_per_dialogue: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse.

        Arguments
        ---------
        styles : Tensor (N, S)
            Style vector of each turn, any width S.
        energies : Tensor (N,)
            Energy of each turn.
        turns_per_dialogue : Tensor (B,) of int

        Returns
        -------
        fused : Tensor (B, S)
        weights : Tensor (N,)

        Raises
        ------
        ConfigError
            If there is not one style a turn, or an energy is negative or not a number.
        """
        check_turns(styles, energies, turns_per_dialogue)
        weights = self.weights(energies, turns_per_dialogue)
        owner = dialogue_of_turn(turns_per_dialogue)
        fused = styles.new_zeros(len(turns_per_dialogue), styles.shape[1])
        return fused.index_add_(0, owner, styles * weights[:, None].to(styles.dtype)), weights
