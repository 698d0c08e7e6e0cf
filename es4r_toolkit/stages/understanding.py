"""Stage 1, empathetic understanding: affect is modelled before the speech encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from es4r_toolkit.data.heard import TurnFrames
from es4r_toolkit.errors import ConfigError, require
from es4r_toolkit.lobes.dialogue_norm import DialogueNorm
from es4r_toolkit.lobes.dual_attention import split_turns
from es4r_toolkit.lobes.injection import GatedInjection
from es4r_toolkit.masks import frame_counts, pack, relative_lengths, share_states, sum_by_dialogue, valid_mask
from es4r_toolkit.protocols import SpeechEncoder

logger = logging.getLogger(__name__)

# Into how many groups of like length turns are split.
GROUPS = 4


@dataclass(frozen=True)
class SpeechStates:
    """What was heard.

    Attributes
    ----------
    states : Tensor (B, L, D)
        At the language model's width, zero at padding.
    lens : Tensor (B,)
        Relative lengths.
    dropped : Tensor (B,) of int
        Oldest turns that the encoder's window had no room for.
    frames : Tensor (M, T, F)
        Of each turn that the window holds, before the dual attention.
    attended : Tensor (M, T, F)
        The same after it.
    attended_lens : Tensor (M,)
        Relative lengths.
    kept : Tensor (N,) of bool
        Which of all turns these are.
    """

    states: Tensor
    lens: Tensor
    dropped: Tensor
    frames: Tensor
    attended: Tensor
    attended_lens: Tensor
    kept: Tensor


class EmpatheticUnderstanding(nn.Module):
    """Waveforms -> log-mel -> downsampler -> dual attention -> encoder -> adapter (ES4R Sec. 3.1).

    Arguments
    ---------
    encoder : SpeechEncoder
    downsampler : nn.Module
        Mels (N, T, F), lengths -> frames (N, T', F), lengths.
    dual_attention : nn.Module
        AffectiveDualAttention or another of its signature.
    adapter : nn.Module, optional
        Encoder states (B, T, E), lengths -> (B, L, D), lengths.
    turn_adapter : nn.Module, optional
        Attended frames (N, T, F), lengths, encoder states (N, S, E), lengths -> (N, D).
    placement : str
        ``replace``: the attended frames go into the encoder in place of the
        mel spectrogram, the dialogue as one sequence (the paper). ``inject``:
        they are added to each turn's own mel through a gate that starts at
        zero, and turns are encoded one by one (ours).
    positions : str
        What the language model gets: ``frames`` through the adapter (the
        paper), or one position a turn, ``turns``, through the turn adapter
        (ours). The other adapter is left out.
    normalization : str
        Of the mels that go into the downsampler: ``none`` (the paper), or
        ``dialogue``, DialogueNorm (ours).
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        downsampler: nn.Module,
        dual_attention: nn.Module,
        adapter: nn.Module | None,
        turn_adapter: nn.Module | None = None,
        placement: str = "replace",
        positions: str = "frames",
        normalization: str = "none",
    ):
        super().__init__()
        require(placement in ("replace", "inject"), "placement", placement, "must be replace or inject")
        require(positions in ("frames", "turns"), "positions", positions, "must be frames or turns")
        require(normalization in ("none", "dialogue"), "normalization", normalization, "must be none or dialogue")
        chosen = adapter if positions == "frames" else turn_adapter
        require(chosen is not None, "positions", positions, "needs its adapter")
        self.encoder, self.downsampler = encoder, downsampler
        self.dual_attention, self.adapter, self.by_turn = dual_attention, chosen, positions == "turns"
        self.normalize = DialogueNorm() if normalization == "dialogue" else None
        self.injection = GatedInjection(encoder.n_mels) if placement == "inject" else None

    def forward(self, waveforms: Tensor, wav_lens: Tensor, turns_per_dialogue: Tensor) -> SpeechStates:
        """Listen.

        Arguments
        ---------
        waveforms : Tensor (N, samples)
            Turns of all dialogues at the encoder's sample rate, dialogue-major, oldest first.
        wav_lens : Tensor (N,)
            Relative lengths.
        turns_per_dialogue : Tensor (B,) of int

        Returns
        -------
        SpeechStates

        Raises
        ------
        ConfigError
            If a newest turn alone is longer than the encoder's window.
        """
        return self.listen(*self.features(waveforms, wav_lens), turns_per_dialogue)

    def features(self, waveforms: Tensor, wav_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (N, samples), relative lengths (N,) -> log-mels (N, T, F), zero at padding, and frames (N,)."""
        mels, lens = self.encoder.features(waveforms, wav_lens)
        return mels, frame_counts(lens, mels.shape[1])

    @property
    def hears_turns_alone(self) -> bool:
        """Whether ``within`` of a turn is the same in any dialogue."""
        return self.normalize is None and hasattr(self.dual_attention, "within")

    def within(self, mels: Tensor, mel_counts: Tensor, turns_per_dialogue: Tensor) -> TurnFrames:
        """Log-mels (N, T, F), frames (N,), turns of each dialogue (B,) -> downsampled, and attended within turns."""
        if self.normalize is not None:
            mels = self.normalize(mels, mel_counts, turns_per_dialogue)
        frames, counts = _by_length(self.downsampler, mels, mel_counts)
        if not hasattr(self.dual_attention, "within"):
            return TurnFrames(frames, frames, counts)
        after = self.dual_attention.within(frames, relative_lengths(counts, frames.shape[1]))
        return TurnFrames(frames, after, counts)

    def listen(
        self, mels: Tensor, mel_counts: Tensor, turns_per_dialogue: Tensor, heard: TurnFrames | None = None
    ) -> SpeechStates:
        """Do the same from log-mels.

        Arguments
        ---------
        mels : Tensor (N, T, F)
        mel_counts : Tensor (N,) of int
            Valid frames of each turn.
        turns_per_dialogue : Tensor (B,) of int
        heard : TurnFrames, optional
            What ``within`` gives of these turns, where it is known.
        """
        frames = self.within(mels, mel_counts, turns_per_dialogue) if heard is None else heard
        keep, dropped = self._window(frames.counts, turns_per_dialogue)
        kept = turns_per_dialogue - dropped
        if bool(dropped.any()):
            mels, mel_counts = mels[keep], mel_counts[keep]
            # A turn that is not heard has no part in the norm either.
            again = self.normalize is not None
            frames = self.within(mels, mel_counts, kept) if again else TurnFrames(*(part[keep] for part in frames))
        counts = frames.counts
        across = getattr(self.dual_attention, "across", self.dual_attention)
        context, lens = across(frames.after, relative_lengths(counts, frames.after.shape[1]), kept)
        attended = split_turns(context, counts, kept)
        if self.injection is None:
            states, lens = self.encoder.encode(context, lens)
            state_counts = share_states(counts, kept, frame_counts(lens, states.shape[1]))
        else:
            injected = self.injection(mels, relative_lengths(mel_counts, mels.shape[1]), attended, counts)
            states, lens, state_counts = self._encode_turns(injected, mel_counts, kept)
        attended_lens = relative_lengths(counts, attended.shape[1])
        if self.by_turn:
            per_turn = split_turns(states, state_counts, kept)
            turns = self.adapter(attended, attended_lens, per_turn, relative_lengths(state_counts, per_turn.shape[1]))
            states, _ = pack(turns, kept)
            lens = relative_lengths(kept, states.shape[1])
        else:
            states, lens = self.adapter(states, lens)
        return SpeechStates(states, lens, dropped, frames.before, attended, attended_lens, keep)

    def _window(self, counts: Tensor, turns_per_dialogue: Tensor) -> tuple[Tensor, Tensor]:
        """Which turns (N,) the window holds, and how many oldest ones (B,) it does not."""
        window = self.encoder.max_frames
        if int(sum_by_dialogue(counts, turns_per_dialogue).max()) <= window:
            return torch.ones_like(counts, dtype=torch.bool), torch.zeros_like(turns_per_dialogue)
        per_dialogue = counts.split(turns_per_dialogue.tolist())
        # Frames from a turn to the end of its dialogue.
        remaining = torch.cat([turns.flip(0).cumsum(0).flip(0) for turns in per_dialogue])
        keep = remaining <= window
        newest = turns_per_dialogue.cumsum(0) - 1
        if not bool(keep[newest].all()):
            raise ConfigError(
                "newest turn",
                f"takes {int(counts[newest].max())} frames, the speech encoder's window holds {window}",
                "cut the recording into shorter turns",
            )
        dropped = sum_by_dialogue((~keep).long(), turns_per_dialogue)
        logger.warning("%d oldest turns do not fit the speech encoder's window and are left out", int(dropped.sum()))
        return keep, dropped

    def _encode_turns(self, mels: Tensor, counts: Tensor, turns_per_dialogue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode each turn by itself, one of more than a window in pieces; join the states by dialogue.

        Gives the states (B, L, E), their relative lengths (B,) and the number of states of each turn (N,).
        """
        window = self.encoder.max_frames
        pieces_per_turn = torch.div(counts + window - 1, window, rounding_mode="floor")
        pieces = torch.full((int(pieces_per_turn.sum()),), window, device=counts.device)
        pieces[pieces_per_turn.cumsum(0) - 1] = counts - (pieces_per_turn - 1) * window
        split, _ = pack(mels[valid_mask(counts, mels.shape[1])], pieces)
        states, state_counts = _by_length(self.encoder.encode, split, pieces)
        turn_counts = sum_by_dialogue(state_counts, pieces_per_turn)
        totals = sum_by_dialogue(turn_counts, turns_per_dialogue)
        joined, _ = pack(states[valid_mask(state_counts, states.shape[1])], totals)
        return joined, relative_lengths(totals, joined.shape[1]), turn_counts


def _by_length(
    step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], sequences: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """Run a step on groups of sequences of like length, so that little padding is computed; order is kept.

    Arguments
    ---------
    step : callable
        Sequences (G, T, ...), relative lengths (G,) -> sequences (G, T', ...), relative lengths (G,).
    sequences : Tensor (N, T, ...)
    counts : Tensor (N,) of int
        Valid frames or samples.

    Returns
    -------
    Tensor (N, T', ...), Tensor (N,) of int
    """
    order = counts.argsort()
    outputs, output_counts = [], []
    for group in order.chunk(GROUPS):
        longest = max(1, int(counts[group].max()))
        output, lens = step(sequences[group, :longest], relative_lengths(counts[group], longest))
        output_counts.append(frame_counts(lens, output.shape[1]))
        outputs.append(output)
    widest = max(output.shape[1] for output in outputs)
    padded = torch.cat([nn.functional.pad(output, (0, 0, 0, widest - output.shape[1])) for output in outputs])
    back = order.argsort()
    return padded[back], torch.cat(output_counts)[back]
