"""Stage 3, empathetic speech synthesis: how the reply is spoken follows the energy of the dialogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from es4r_toolkit.lobes.energy_strategy import EnergyStrategySelector, StrategyChoice
from es4r_toolkit.lobes.style_fuser import StyleFuser
from es4r_toolkit.masks import frame_counts
from es4r_toolkit.protocols import SpeechSynthesizer


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
            nothing = waveforms.new_zeros(self.voice.style_dim)
            # A silent turn weighs nothing and has no style that could be computed.
            turns = [
                self.voice.style(wave[:count], self.sample_rate).to(nothing) if weight > 0 else nothing
                for wave, count, weight in zip(waveforms, samples, self.style.weights(energies, turns_per_dialogue))
            ]
            fused, weights = self.style(torch.stack(turns), energies, turns_per_dialogue)
            styles = list(fused)
        return [
            SpeechPlan(choice, tuple(energy.tolist()), tuple(share.tolist()), style)
            for choice, energy, share, style in zip(choices, energies.split(sizes), weights.split(sizes), styles)
        ]

    def speak(self, text: str, plan: SpeechPlan) -> Tensor:
        """A reply -> waveform (samples,) at the voice's sample rate."""
        return self.voice.synthesize(text, plan.style, plan.strategy.prosody)

    def stream(self, text: str, plan: SpeechPlan) -> Iterator[Tensor]:
        """The same, a sentence at a time."""
        return self.voice.stream(text, plan.style, plan.strategy.prosody)
