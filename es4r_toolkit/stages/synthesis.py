"""Stage 3, empathetic speech synthesis: how the reply is spoken follows the energy of the dialogue."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from es4r_toolkit.errors import BackendError, require
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
    def measure(
        self, waveforms: Tensor, wav_lens: Tensor, styles: list[Tensor | None] | None = None
    ) -> tuple[Tensor, list[Tensor | None]]:
        """What each turn by itself says of how to speak.

        Arguments
        ---------
        waveforms : Tensor (N, samples)
        wav_lens : Tensor (N,)
            Relative lengths.
        styles : list of Tensor (S,) or None, optional
            N of them, where they are known.

        Returns
        -------
        Tensor (N,)
            Energies.
        list of Tensor (S,) or None
            Styles; None where the voice has none, or the turn too little speech.
        """
        energies = self.strategy.energies(waveforms, wav_lens)
        if styles is not None or self.voice.style_dim is None:
            return energies, styles or [None] * len(energies)
        samples = frame_counts(wav_lens, waveforms.shape[1]).tolist()
        return energies, [self._style(wave[:count]) for wave, count in zip(waveforms, samples)]

    @torch.no_grad()
    def decide(
        self,
        energies: Tensor,
        styles: Sequence[Tensor | None],
        turns_per_dialogue: Tensor,
        is_speaker: Tensor,
        strategy: str | None = None,
    ) -> list[SpeechPlan]:
        """Decide how to speak from what was measured of each turn, one plan a dialogue.

        Arguments
        ---------
        energies : Tensor (N,)
        styles : sequence of Tensor (S,) or None
            N of them.
        turns_per_dialogue : Tensor (B,) of int
        is_speaker : Tensor (N,) of bool
        strategy : str, optional
            One that is taken whatever the energies say.

        Raises
        ------
        ConfigError
            If there is no strategy of that name.
        """
        choices = self.strategy(energies, turns_per_dialogue, is_speaker)
        if strategy is not None:
            choices = [self._forced(choice, strategy) for choice in choices]
        sizes = turns_per_dialogue.tolist()
        fused: list[Tensor | None] = [None] * len(sizes)
        if self.voice.style_dim is None:
            weights = self.style.weights(energies, turns_per_dialogue)
            # A voice without styles of recordings may have some for strategies.
            if hasattr(self.voice, "strategy_style"):
                fused = [self.voice.strategy_style(choice.weights) for choice in choices]
        else:
            heard = torch.tensor([style is not None for style in styles], device=energies.device)
            nothing = energies.new_zeros(self.voice.style_dim)
            stacked = torch.stack([nothing if style is None else style.to(nothing) for style in styles])
            mixed, weights = self.style(stacked, energies * heard, turns_per_dialogue)
            # Where no turn has a style the voice speaks as it does without one.
            fused = [style if bool(any_heard.any()) else None for style, any_heard in zip(mixed, heard.split(sizes))]
        return [
            SpeechPlan(choice, tuple(energy.tolist()), tuple(share.tolist()), style)
            for choice, energy, share, style in zip(choices, energies.split(sizes), weights.split(sizes), fused)
        ]

    def _forced(self, choice: StrategyChoice, name: str) -> StrategyChoice:
        known = self.strategy.prosodies
        require(name in known, "strategy", name, f"must be one of {', '.join(known)}")
        weights = {other: float(other == name) for other in known}
        return replace(choice, name=name, weights=weights, prosody=known[name])

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
