"""The contracts that let encoders, language models and voices be swapped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from es4r_toolkit.lobes.energy_strategy import Prosody

NEUTRAL = Prosody()


@runtime_checkable
class SpeechEncoder(Protocol):
    """Turns waveforms into log-mels, and log-mels into states.

    One whose log-mels may be kept on disk has ``feature_settings``, a dict of
    everything that they depend on.

    Attributes
    ----------
    n_mels : int
        Mel bins of its input.
    out_dim : int
        Width of its output.
    sample_rate : int
        Of the waveforms it takes (Hz).
    hop : int
        Samples between two mel frames.
    max_frames : int
        The most mel frames it takes at once.
    """

    n_mels: int
    out_dim: int
    sample_rate: int
    hop: int
    max_frames: int

    def features(self, waveforms: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (N, samples), relative lengths (N,) -> log-mels (N, T, n_mels), relative lengths (N,)."""
        ...

    def encode(self, mels: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Mels (B, T, n_mels), T <= max_frames, lengths (B,) -> states (B, L, out_dim), lengths (B,)."""
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model that reads embeddings.

    A position mask (B, P) says where its adapters are active; None is nowhere.
    """

    hidden_dim: int
    num_heads: int
    max_positions: int | None
    tokenizer: Any
    embedding_table: Tensor

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (...,) -> embeddings (..., hidden_dim)."""
        ...

    def logits(self, embeds: Tensor, valid: Tensor, adapted: Tensor | None, last: int) -> Tensor:
        """Embeddings (B, P, hidden_dim), valid positions (B, P) -> logits (B, last, vocabulary)."""
        ...

    def generate(
        self, embeds: Tensor, valid: Tensor, adapted: Tensor | None, max_new_tokens: int, **options: object
    ) -> list[list[int]]:
        """Left-padded embeddings (B, P, hidden_dim) -> new token ids of each row, without the end token."""
        ...

    def stream(
        self, embeds: Tensor, valid: Tensor, adapted: Tensor | None, max_new_tokens: int, **options: object
    ) -> Iterator[int]:
        """One left-padded row (1, P, hidden_dim) -> new token ids, as they come."""
        ...


@runtime_checkable
class SpeechSynthesizer(Protocol):
    """Speaks a text.

    Attributes
    ----------
    sample_rate : int
        Of the waveforms it gives (Hz).
    style_dim : int or None
        Width of its style vectors; None where it has none. Such a voice may
        have ``strategy_style(weights)``, which makes a style of the weights
        over strategies. One whose styles may be kept on disk has
        ``style_settings``, a dict of everything that they depend on.
    honours : frozenset of str
        The fields of Prosody that change its speech.
    """

    sample_rate: int
    style_dim: int | None
    honours: frozenset[str]

    def style(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """A recording (samples,) -> its style vector (style_dim,)."""
        ...

    def synthesize(self, text: str, style: Tensor | None = None, prosody: Prosody = NEUTRAL) -> Tensor:
        """A text -> float32 waveform (samples,) within [-1, 1]."""
        ...

    def stream(self, text: str, style: Tensor | None = None, prosody: Prosody = NEUTRAL) -> Iterator[Tensor]:
        """The same, a sentence at a time."""
        ...


@runtime_checkable
class Recognizer(Protocol):
    """Writes down what was said, for dialogues without transcripts.

    One that can take the speech encoder's weights has ``share_encoder(encoder)``
    and then ``shares_features``; where that is True, ``transcribe_features``
    takes the encoder's log-mels (T, n_mels) in place of a recording.

    Attributes
    ----------
    name : str
        What the output calls it.
    identity : str
        What tells it from others that would write other words: its name, and
        where it has them its checkpoint and language.
    sample_rate : int
        Of the waveforms it takes (Hz).
    """

    name: str
    identity: str
    sample_rate: int

    def transcribe(self, waveform: Tensor) -> str:
        """A recording (samples,) -> its words."""
        ...
