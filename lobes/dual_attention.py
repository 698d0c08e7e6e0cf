"""AffectiveDualAttention: affect inside each turn, then across turns, before the speech encoder."""

from __future__ import annotations

from torch import Tensor, nn

from es4r_toolkit.errors import require
from es4r_toolkit.lobes.attention import MultiHeadAttention
from es4r_toolkit.masks import (
    check_turns,
    frame_counts,
    pack,
    relative_lengths,
    sum_by_dialogue,
    turn_recency,
    valid_mask,
)

LEVELS = ("both", "intra", "inter", "none")


class AffectiveDualAttention(nn.Module):
    """Self-attention within each turn, then over the frames of the whole dialogue.

    ES4R (arXiv 2601.16225) Sec. 3.1: Eq. 2-3 attend inside turn k,
    ``H_k = MHSA(X_k, X_k, X_k)``; the turns are concatenated in time, without
    the padding between them; Eq. 4 attends over the dialogue. The paper's form
    is ``residual=False, share_levels=True, recency=0``; the defaults (pre-norm
    residuals, a level each its own weights, recency embeddings) are ours.

    Arguments
    ---------
    input_size : int
        Width F of a frame.
    num_heads : int
        Attention heads; must divide ``input_size``.
    levels : str
        ``both``, ``intra``, ``inter``, or ``none`` (turns are only concatenated).
    residual : bool
        Pre-norm residual attention, ``x + MHSA(LayerNorm(x))``, or bare ``MHSA(x)``.
    share_levels : bool
        One attention serves both levels.
    recency : int
        Before the inter level, add a learned embedding of how many turns ago a
        frame was spoken; this many steps are told apart. 0 adds none.
    dropout : float
        On the attention weights.

    Raises
    ------
    ConfigError
        If an argument breaks its rule, or the lengths do not fit the turns.

    Example
    -------
    >>> import torch
    >>> attention = AffectiveDualAttention(input_size=80, num_heads=16)
    >>> turns = torch.rand(3, 10, 80)                    # three turns, two dialogues
    >>> turn_lens = torch.tensor([1.0, 0.5, 0.8])
    >>> context, lens = attention(turns, turn_lens, torch.tensor([2, 1]))
    >>> context.shape, (lens * context.shape[1]).tolist()
    (torch.Size([2, 15, 80]), [15.0, 8.0])
    """

    def __init__(
        self,
        input_size: int,
        num_heads: int = 16,
        levels: str = "both",
        residual: bool = True,
        share_levels: bool = False,
        recency: int = 16,
        dropout: float = 0.0,
    ):
        super().__init__()
        require(levels in LEVELS, "levels", levels, f"must be one of {', '.join(LEVELS)}")
        require(recency >= 0, "recency", recency, "must not be negative")
        # A residual level starts as the identity: from random weights it would first blur what the frames say.
        options = {"dropout": dropout, "zero_init": residual}
        self.intra = MultiHeadAttention(input_size, num_heads, **options) if levels in ("both", "intra") else None
        self.inter = None
        if levels in ("both", "inter"):
            shared = share_levels and self.intra is not None
            self.inter = self.intra if shared else MultiHeadAttention(input_size, num_heads, **options)
        self.intra_norm = nn.LayerNorm(input_size) if residual and self.intra is not None else None
        self.inter_norm = nn.LayerNorm(input_size) if residual and self.inter is not None else None
        self.recency = nn.Embedding(recency, input_size) if recency and self.inter is not None else None
        if self.recency is not None:
            nn.init.normal_(self.recency.weight, std=0.02)

    def forward(self, turns: Tensor, turn_lens: Tensor, turns_per_dialogue: Tensor) -> tuple[Tensor, Tensor]:
        """Attend within turns, join them, attend across them.

        Arguments
        ---------
        turns : Tensor (N, T, F)
            Turns of all dialogues, dialogue-major, oldest first.
        turn_lens : Tensor (N,)
            Relative lengths of the turns.
        turns_per_dialogue : Tensor (B,) of int
            They sum to N.

        Returns
        -------
        context : Tensor (B, L, F)
            L counts the valid frames of the longest dialogue; padding is zero.
        context_lens : Tensor (B,)
            Relative lengths.
        """
        check_turns(turns, turn_lens, turns_per_dialogue)
        return self.across(self.within(turns, turn_lens), turn_lens, turns_per_dialogue)

    def within(self, turns: Tensor, turn_lens: Tensor) -> Tensor:
        """The first level alone, which no other turn has a part in: (N, T, F), (N,) -> (N, T, F)."""
        if self.intra is None:
            return turns
        valid = valid_mask(frame_counts(turn_lens, turns.shape[1]), turns.shape[1])
        return _attend(self.intra, self.intra_norm, turns, valid)

    def across(self, turns: Tensor, turn_lens: Tensor, turns_per_dialogue: Tensor) -> tuple[Tensor, Tensor]:
        """The second level, of turns that the first has been over; takes and gives what ``forward`` does."""
        counts = frame_counts(turn_lens, turns.shape[1])
        valid = valid_mask(counts, turns.shape[1])
        dialogue_counts = sum_by_dialogue(counts, turns_per_dialogue)
        context, context_valid = pack(turns[valid], dialogue_counts)
        if self.recency is not None:
            age = turn_recency(turns_per_dialogue).clamp(max=self.recency.num_embeddings - 1)
            ages, _ = pack(age.repeat_interleave(counts), dialogue_counts)
            context = context + self.recency(ages)
        if self.inter is not None:
            context = _attend(self.inter, self.inter_norm, context, context_valid)
        context = context.masked_fill(~context_valid[..., None], 0.0)
        return context, relative_lengths(dialogue_counts, context.shape[1])


def split_turns(context: Tensor, turn_counts: Tensor, turns_per_dialogue: Tensor) -> Tensor:
    """Undo the concatenation: (B, L, F) and frames per turn (N,) -> (N, T, F), zero at padding.

    Example
    -------
    >>> import torch
    >>> context = torch.arange(6.).reshape(2, 3, 1)
    >>> split_turns(context, torch.tensor([1, 2, 3]), torch.tensor([2, 1])).squeeze(2).tolist()
    [[0.0, 0.0, 0.0], [1.0, 2.0, 0.0], [3.0, 4.0, 5.0]]
    """
    valid = valid_mask(sum_by_dialogue(turn_counts, turns_per_dialogue), context.shape[1])
    return pack(context[valid], turn_counts)[0]


def _attend(attention: MultiHeadAttention, norm: nn.LayerNorm | None, frames: Tensor, valid: Tensor) -> Tensor:
    if norm is None:
        return attention(frames, frames, valid)[0]
    normed = norm(frames)
    return frames + attention(normed, normed, valid)[0]
