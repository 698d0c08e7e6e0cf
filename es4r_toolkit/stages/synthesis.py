"""Stage 3, empathetic speech synthesis: how the reply is spoken follows the energy of the dialogue."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from es4r_toolkit.errors import BackendError
from es4r_toolkit.lobes.energy_strategy import EnergyStrategySelector, StrategyChoice
from es4r_toolkit.lobes.style_fuser import StyleFuser
from es4r_toolkit.masks import frame_counts
from es4r_toolkit.protocols import SpeechSynthesizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpeechPlan:
    """How to speak the reply to one dialogue.

    Attributes
    ----------
    strategy : StrategyChoice
    energies : tuple of float
        Of each history turn.
    style_weights : tuple of float
        Share of each history turn in the reply's style.
    style : Tensor (S,) or None
        The fused style vector, or what the voice makes of the strategy; None where it has neither.
    """

    strategy: StrategyChoice
    energies: tuple[float, ...]
    style_weights: tuple[float, ...]
    style: Tensor | None


class EmpatheticSynthesis(nn.Module):
    """Choose strategy and style from the history, then speak (ES4R Sec. 3.3).

    Arguments
    ---------
    voice : SpeechSynthesizer
    strategy : EnergyStrategySelector
    style : StyleFuser
    """

    def __init__(self, voice: SpeechSynthesizer, strategy: EnergyStrategySelector, style: StyleFuser):
        super().__init__()
        self.voice, self.strategy, self.style = voice, strategy, style

    @property
    def sample_rate(self) -> int:
        """Of the waveforms it takes (Hz)."""
        return self.strategy.sample_rate

    @torch.no_grad()
    def plan(
        self, waveforms: Tensor, wav_lens: Tensor, turns_per_dialogue: Tensor, is_speaker: Tensor
    ) -> list[SpeechPlan]:
        """Decide how to speak, one plan a dialogue.

        Arguments
        ---------
        waveforms : Tensor (N, samples)
        wav_lens : Tensor (N,)
        turns_per_dialogue : Tensor (B,) of int
        is_speaker : Tensor (N,) of bool
        """
        energies = self.strategy.energies(waveforms, wav_lens)
        choices = self.strategy(energies, turns_per_dialogue, is_speaker)
        sizes = turns_per_dialogue.tolist()
        styles: list[Tensor | None] = [None] * len(sizes)
        if self.voice.style_dim is None:
            weights = self.style.weights(energies, turns_per_dialogue)
            # A voice without styles of recordings may have some for strategies.
            if hasattr(self.voice, "strategy_style"):
                styles = [self.voice.strategy_style(choice.weights) for choice in choices]
        else:
            samples = frame_counts(wav_lens, waveforms.shape[1]).tolist()
            turns = [self._style(wave[:count]) for wave, count in zip(waveforms, samples)]
            heard = torch.tensor([turn is not None for turn in turns], device=energies.device)
            nothing = waveforms.new_zeros(self.voice.style_dim)
            stacked = torch.stack([nothing if turn is None else turn.to(nothing) for turn in turns])
            fused, weights = self.style(stacked, energies * heard, turns_per_dialogue)
            # Where no turn has a style the voice speaks as it does without one.
            styles = [style if bool(any_heard.any()) else None for style, any_heard in zip(fused, heard.split(sizes))]
        return [
            SpeechPlan(choice, tuple(energy.tolist()), tuple(share.tolist()), style)
            for choice, energy, share, style in zip(choices, energies.split(sizes), weights.split(sizes), styles)
        ]

    def _style(self, waveform: Tensor) -> Tensor | None:
        """The style of a turn (S,); None of one that has too little speech."""
        try:
            return self.voice.style(waveform, self.sample_rate)
        except BackendError as fault:
            logger.warning("a turn has no part in the style of the reply: %s", fault)
            return None

    def speak(self, text: str, plan: SpeechPlan) -> Tensor:
        """A reply -> waveform (samples,) at the voice's sample rate."""
        return self.voice.synthesize(text, plan.style, plan.strategy.prosody)

    def stream(self, text: str, plan: SpeechPlan) -> Iterator[Tensor]:
        """The same, a sentence at a time."""
        return self.voice.stream(text, plan.style, plan.strategy.prosody)
