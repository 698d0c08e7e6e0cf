"""EnergyStrategySelector: the reply's speaking strategy from the energy of the dialogue."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor, nn

from es4r_toolkit.errors import ConfigError, require
from es4r_toolkit.masks import check_turns, frame_counts, sum_by_dialogue, valid_mask


@dataclass(frozen=True)
class Prosody:
    """How a reply is spoken; 1 or 0 leaves the voice as it is.

    Attributes
    ----------
    rate : float
        Speed factor; below 1 is slower (the paper's duration factor).
    expressiveness : float
        Factor of pitch range or style scale.
    pitch_shift : float
        Semitones.
    energy : float
        Loudness in dB, relative to the voice's own.
    """

    rate: float = 1.0
    expressiveness: float = 1.0
    pitch_shift: float = 0.0
    energy: float = 0.0


@dataclass(frozen=True)
class StrategyChoice:
    """What the selector decides for one dialogue.

    Attributes
    ----------
    name : str
        The strategy; in continuous mode the one of the largest weight.
    weights : dict of str to float
        Share of each strategy, summing to 1; one-hot in discrete mode.
    change : float
        Average energy change per turn (ES4R Eq. 9), in units of energy.
    relative_change : float
        The same divided by the mean energy of the turns used.
    prosody : Prosody
        The strategy's prosody, or the weighted mean of all.
    """

    name: str
    weights: dict[str, float]
    change: float
    relative_change: float
    prosody: Prosody


class EnergyStrategySelector(nn.Module):
    """Choose a speaking strategy per dialogue from how its energy changes.

    The energy of a turn is the mean over its frames of the l2 norm of its
    linear-amplitude mel spectrogram (ES4R Sec. 3.3; linear amplitude and the
    trimming of silence are ours). The change is the mean difference of
    neighbouring turns, ``(e_last - e_first) / (turns - 1)`` (Eq. 9), here
    divided by the mean energy so that a table fits any recording level.

    Arguments
    ---------
    strategies : mapping of str to mapping
        Name -> ``{from, to, rate, expressiveness, pitch_shift, energy}``.
        ``from`` and ``to`` bound the relative change per turn that calls for
        the strategy, -inf and +inf where left out; the rest is its Prosody.
        Together the ranges must cover the line without gap or overlap.
    mode : str
        ``discrete`` gives one strategy, ``continuous`` soft weights: the
        probability that the change, blurred by logistic noise, falls in each
        range (ours).
    softness : float
        Scale of that noise, in relative change per turn.
    turns : str
        ``all`` or ``speaker``: which turns the change is taken over.
    sample_rate : int
        Of waveforms, in Hz.
    n_mels, n_fft, hop : int
        Mel bins, FFT size and hop (samples) for waveforms.
    trim_db : float
        Frames this far below the turn's loudest count as silence (dB).

    Raises
    ------
    ConfigError
        If a value breaks its rule or the ranges do not tile the line.

    Example
    -------
    >>> select = EnergyStrategySelector({
    ...     "comfort": {"to": 0.0, "rate": 0.85}, "neutral": {"from": 0.0, "to": 0.0},
    ...     "encourage": {"from": 0.0}})
    >>> energies = torch.tensor([3.0, 2.0, 1.0, 1.0, 2.0])
    >>> [choice.name for choice in select(energies, torch.tensor([3, 2]))]
    ['comfort', 'encourage']
    """

    def __init__(
        self,
        strategies: Mapping[str, Mapping[str, float]],
        mode: str = "discrete",
        softness: float = 0.02,
        turns: str = "all",
        sample_rate: int = 16000,
        n_mels: int = 80,
        n_fft: int = 400,
        hop: int = 160,
        trim_db: float = 40.0,
    ):
        super().__init__()
        require(mode in ("discrete", "continuous"), "mode", mode, "must be discrete or continuous")
        require(turns in ("all", "speaker"), "turns", turns, "must be all or speaker")
        require(softness > 0, "softness", softness, "must be positive")
        require(trim_db > 0, "trim_db", trim_db, "must be positive (dB)")
        self.mode, self.softness, self.turns = mode, softness, turns
        self.sample_rate, self.n_fft, self.hop, self.trim_db = sample_rate, n_fft, hop, trim_db
        self.ranges, self.prosodies = _read_table(strategies)
        self.register_buffer("mel_filters", mel_filterbank(sample_rate, n_fft, n_mels), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def energies(self, turns: Tensor, turn_lens: Tensor) -> Tensor:
        """Energy of each turn.

        Arguments
        ---------
        turns : Tensor (N, samples) or (N, T, F)
            Waveforms, or linear-amplitude mel spectrograms.
        turn_lens : Tensor (N,)
            Relative lengths.

        Returns
        -------
        Tensor (N,)
            0 for a silent or empty turn, never negative.
        """
        require(turns.dim() in (2, 3), "turns", tuple(turns.shape), "must be (N, samples) or (N, T, F)")
        counts = frame_counts(turn_lens, turns.shape[1])
        if turns.dim() == 2:
            turns = turns.masked_fill(~valid_mask(counts, turns.shape[1]), 0.0)
            with torch.autocast(turns.device.type, enabled=False):
                turns = self._mel(turns.to(self.window.dtype))
            counts = torch.div(counts + self.hop - 1, self.hop, rounding_mode="floor")
        norms = turns.norm(dim=2).masked_fill(~valid_mask(counts, turns.shape[1]), 0.0)
        floor = norms.amax(dim=1, keepdim=True) * 10 ** (-self.trim_db / 20)
        voiced = (norms > 0) & (norms >= floor)
        return norms.masked_fill(~voiced, 0.0).sum(dim=1) / voiced.sum(dim=1).clamp(min=1)

    def forward(
        self, energies: Tensor, turns_per_dialogue: Tensor, is_speaker: Tensor | None = None
    ) -> list[StrategyChoice]:
        """Choose a strategy for each dialogue.

        Arguments
        ---------
        energies : Tensor (N,)
            Energy of each turn, dialogue-major, oldest first.
        turns_per_dialogue : Tensor (B,)
            Number of turns of each dialogue.
        is_speaker : Tensor (N,) of bool, optional
            Needed where ``turns`` is ``speaker``.

        Returns
        -------
        list of StrategyChoice
            One a dialogue. Fewer than two turns count as no change.

        Raises
        ------
        ConfigError
            If there is not one energy a turn, or an energy is negative or not a number.
        """
        check_turns(energies, energies, turns_per_dialogue)
        fit = energies.isfinite() & (energies >= 0)
        require(bool(fit.all()), "energies", energies.tolist(), "must be finite and not negative")
        if self.turns == "speaker":
            require(is_speaker is not None, "is_speaker", is_speaker, "must be given where turns is speaker")
            turns_per_dialogue = sum_by_dialogue(is_speaker.long(), turns_per_dialogue)
            energies = energies[is_speaker]
        changes = energy_change(energies, turns_per_dialogue)
        means = sum_by_dialogue(energies.double(), turns_per_dialogue) / turns_per_dialogue.clamp(min=1)
        relative = changes / means.clamp(min=torch.finfo(torch.float32).tiny)
        return [self._choose(change, share) for change, share in zip(changes.tolist(), relative.tolist())]

    def _choose(self, change: float, relative: float) -> StrategyChoice:
        if self.mode == "discrete":
            inside = [name for name, (low, high) in self.ranges.items() if low <= relative <= high]
            name = min(inside, key=lambda key: self.ranges[key][1] - self.ranges[key][0])
            weights = {key: float(key == name) for key in self.ranges}
        else:
            weights = {
                key: _sigmoid((high - relative) / self.softness) - _sigmoid((low - relative) / self.softness)
                for key, (low, high) in self.ranges.items()
            }
            name = max(weights, key=weights.__getitem__)
        mixed = {
            field.name: sum(weight * getattr(self.prosodies[key], field.name) for key, weight in weights.items())
            for field in fields(Prosody)
        }
        return StrategyChoice(name, weights, change, relative, Prosody(**mixed))

    def _mel(self, waveforms: Tensor) -> Tensor:
        padded = nn.functional.pad(waveforms, (self.n_fft // 2, self.n_fft // 2 + self.hop))
        spectrum = torch.stft(padded, self.n_fft, self.hop, window=self.window, center=False, return_complex=True)
        return spectrum.abs().transpose(1, 2) @ self.mel_filters


def energy_change(energies: Tensor, turns_per_dialogue: Tensor) -> Tensor:
    """Average change of energy per turn (ES4R Eq. 9), (N,), (B,) -> (B,) in float64.

    0 where a dialogue has fewer than two turns.

    Example
    -------
    >>> energy_change(torch.tensor([1., 2., 4., 3.]), torch.tensor([3, 1]))
    tensor([1.5000, 0.0000], dtype=torch.float64)
    """
    ends = turns_per_dialogue.cumsum(0)
    change = torch.zeros(len(ends), dtype=torch.float64, device=energies.device)
    several = turns_per_dialogue > 1
    last = energies[(ends - 1)[several]].double()
    first = energies[(ends - turns_per_dialogue)[several]].double()
    change[several] = (last - first) / (turns_per_dialogue[several] - 1)
    return change


def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Triangular mel filters of unit height (HTK scale), (n_fft // 2 + 1, n_mels).

    Example
    -------
    >>> mel_filterbank(16000, 400, 80).shape
    torch.Size([201, 80])
    """
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, n_mels + 2) / 2595) - 1)
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def _sigmoid(value: float) -> float:
    return 0.5 * (1 + math.tanh(value / 2))


def _read_table(
    strategies: Mapping[str, Mapping[str, float]],
) -> tuple[dict[str, tuple[float, float]], dict[str, Prosody]]:
    require(len(strategies) > 0, "strategies", dict(strategies), "must hold at least one strategy")
    known = {"from", "to", *asdict(Prosody())}
    ranges, prosodies = {}, {}
    for name, entry in strategies.items():
        require(isinstance(entry, Mapping), f"strategies[{name}]", entry, "must be a mapping, {} at least")
        unknown = sorted(set(entry) - known)
        require(not unknown, f"strategies[{name}]", unknown, f"knows only {sorted(known)}")
        for key, value in entry.items():
            fit = isinstance(value, int | float) and (math.isfinite(value) or key in ("from", "to"))
            require(fit and not math.isnan(value), f"strategies[{name}].{key}", value, "must be a finite number")
        prosody = Prosody(**{key: float(value) for key, value in entry.items() if key not in ("from", "to")})
        require(prosody.rate > 0, f"strategies[{name}].rate", prosody.rate, "must be positive")
        require(prosody.expressiveness > 0, f"strategies[{name}].expressiveness", prosody.expressiveness, "must be > 0")
        ranges[name] = (float(entry.get("from", -math.inf)), float(entry.get("to", math.inf)))
        prosodies[name] = prosody
    _check_tiling(sorted(ranges.values()))
    return ranges, prosodies


def _check_tiling(ranges: Sequence[tuple[float, float]]) -> None:
    ends = [-math.inf, *(high for _, high in ranges)]
    starts = [*(low for low, _ in ranges), math.inf]
    for end, start in zip(ends, starts):
        if end != start:
            raise ConfigError(
                "strategies",
                f"one range ends at {end} and the next starts at {start}",
                "let them meet, from -inf to inf",
            )
