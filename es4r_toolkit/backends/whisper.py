"""WhisperSpeechEncoder: any Hugging Face Whisper, of any length and with a true mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from es4r_toolkit.backends.attention import PACKED, REHEARSED
from es4r_toolkit.backends.checkpoints import (
    check_sizes,
    digest,
    is_folder,
    is_planning,
    load_config,
    load_weights,
    naming,
)
from es4r_toolkit.backends.untrusted import refuse_huge_filters
from es4r_toolkit.errors import BackendError, require
from es4r_toolkit.masks import frame_counts, pack, relative_lengths, valid_mask

AT_ONCE = 1024  # frames
DTYPES = ("float32", "bfloat16")


class WhisperSpeechEncoder(nn.Module):
    """The encoder half of a Whisper checkpoint, with its own log-mel front end.

    Hugging Face's encoder takes 3000 frames exactly and ignores the padding
    mask. This one drives the same submodules for any length up to the window,
    masks padded keys, and equals it at 3000 frames. Frozen, it stays in eval
    mode and passes gradients on to its input.

    Arguments
    ---------
    source : str or Path
        Hub name or local folder of a Whisper checkpoint (safetensors).
    freeze : bool
        Whether its weights are trained.
    full_window : bool
        Pad every input to the whole window and leave the padding unmasked, as
        the paper's code does.
    dtype : str
        ``float32``, or ``bfloat16`` for a frozen encoder: its matrices are
        held and multiplied in it, norms and residual stream stay in float32.
    revision : str, optional
        Branch, tag or commit on the hub.
    architecture : mapping, optional
        Sizes of a hub checkpoint, for dry runs: keys of its ``config.json``.
    n_mels, out_dim : int, optional
        What the YAML reckons with; checked against the checkpoint.

    Raises
    ------
    BackendError
        If the source is missing, holds no Whisper or one of another size.
    ConfigError
        If an encoder that is trained is to be held in bfloat16.
    """

    def __init__(
        self,
        source: str | Path,
        freeze: bool = True,
        full_window: bool = False,
        dtype: str = "float32",
        revision: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        n_mels: int | None = None,
        out_dim: int | None = None,
    ):
        super().__init__()
        require(dtype in DTYPES, "dtype", dtype, f"must be one of {', '.join(DTYPES)}")
        require(freeze or dtype == "float32", "dtype", dtype, "is for a frozen encoder; training needs float32")
        whole = load_config(source, architecture, revision)
        if not isinstance(whole, WhisperConfig):
            raise BackendError(source, f"is a {whole.model_type}, not a Whisper", "choose the fragment of its kind")
        extractor = _front_end(source, whole, revision)
        config = deepcopy(whole)
        # Only the encoder is kept, so the decoder's layers are never read.
        config.decoder_layers = 0
        # Published checkpoints are float16, and would be kept so.
        options = {"revision": revision, "dtype": torch.float32}
        model = load_weights(WhisperModel, source, config, _is_encoder, whole, **options)
        self.encoder = model.encoder.requires_grad_(not freeze)
        self.dtype = getattr(torch, dtype)
        for layer in self.encoder.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d):
                layer.to(self.dtype)
        self.encoder.config._attn_implementation = PACKED
        self.encoder.embed_positions.requires_grad_(False)
        self.freeze, self.full_window, self.source = freeze, full_window, _identity(source, revision)
        if extractor.feature_size != config.num_mel_bins:
            raise BackendError(
                source,
                f"its feature extractor gives {extractor.feature_size} mels, its encoder takes {config.num_mel_bins}",
                "copy the preprocessor_config.json that belongs to this checkpoint",
            )
        self.n_mels, self.out_dim = config.num_mel_bins, config.d_model
        check_sizes(source, self, n_mels=n_mels, out_dim=out_dim)
        self.sample_rate, self.hop, self.n_fft = extractor.sampling_rate, extractor.hop_length, extractor.n_fft
        self.stride = self.encoder.conv2.stride[0]
        self.max_frames = config.max_source_positions * self.stride
        filters = torch.from_numpy(extractor.mel_filters).float()
        self.register_buffer("mel_filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    @property
    def feature_settings(self) -> dict[str, Any]:
        """Everything that the log-mels depend on."""
        sizes = {"sample_rate": self.sample_rate, "hop": self.hop, "n_fft": self.n_fft}
        return {"features": "Whisper's log-mel", **sizes, "mel_filters": digest([self.mel_filters])}

    def is_of(self, source: str | Path, revision: str | None) -> bool:
        """Whether its weights are as that checkpoint has them."""
        return self.freeze and self.source == _identity(source, revision)

    def save(self, folder: str | Path) -> None:
        """Write the encoder as a Whisper checkpoint without decoder layers (safetensors)."""
        whole = WhisperModel(self.encoder.config)
        whole.encoder = self.encoder
        whole.save_pretrained(folder)

    def train(self, mode: bool = True) -> WhisperSpeechEncoder:
        """Switch mode; a frozen encoder stays in eval mode."""
        return super().train(mode and not self.freeze)

    @torch.no_grad()
    def features(self, waveforms: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mels as Whisper's own extractor makes them, each clip by itself.

        Arguments
        ---------
        waveforms : Tensor (N, samples)
            At ``sample_rate``, within [-1, 1].
        lens : Tensor (N,)
            Relative lengths.

        Returns
        -------
        mels : Tensor (N, T, n_mels)
            T = samples / hop, rounded up; zero at padding.
        mel_lens : Tensor (N,)
            Relative lengths, at least one frame each.
        """
        counts = frame_counts(lens, waveforms.shape[1]).clamp(min=1)
        with torch.autocast(waveforms.device.type, enabled=False):
            return self._log_mels(waveforms.to(self.window.dtype), counts)

    def _log_mels(self, waveforms: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        frames = torch.div(counts + self.hop - 1, self.hop, rounding_mode="floor")
        # Clips end to end, so that no padding is transformed; the frames that reach from one into the next are dropped.
        spare = -(-self.n_fft // self.hop) - 1
        signal = self._lay_out(waveforms, counts.tolist(), ((frames + spare) * self.hop).tolist())
        own = valid_mask(frames, int(frames.max()) + spare)[valid_mask(frames + spare, int(frames.max()) + spare)]
        logs = self._mel_power(signal.unfold(0, self.n_fft, self.hop))[own].clamp_(min=1e-10).log10_()
        clip = torch.arange(len(frames), device=frames.device).repeat_interleave(frames)
        loudest = logs.new_full((len(frames),), -10.0).scatter_reduce_(0, clip, logs.amax(dim=1), "amax")
        logs = torch.maximum(logs, loudest[clip, None] - 8.0)
        mels, _ = pack(logs.add_(4.0).div_(4.0), frames)
        return mels, relative_lengths(frames, mels.shape[1])

    def _mel_power(self, frames: Tensor) -> Tensor:
        """Frames (M, n_fft) -> power in each mel band (M, n_mels)."""
        bands = []
        # On a processor, as many at once as its cache holds.
        for part in frames.split(AT_ONCE) if frames.device.type == "cpu" else [frames]:
            spectrum = torch.fft.rfft(part * self.window)
            bands.append((spectrum.real.square() + spectrum.imag.square()) @ self.mel_filters)
        return torch.cat(bands)

    def _lay_out(self, waveforms: Tensor, counts: list[int], places: list[int]) -> Tensor:
        """Each clip (of waveforms (N, samples)) in its own place of one signal, its start mirrored as Whisper does."""
        half = self.n_fft // 2
        signal = waveforms.new_zeros(sum(places) + self.n_fft - self.hop)
        start = 0
        for waveform, count, place in zip(waveforms, counts, places):
            mirrored = waveform[1 : min(half + 1, count)].flip(0)
            signal[start + half - len(mirrored) : start + half] = mirrored
            signal[start + half : start + half + count] = waveform[:count]
            start += place
        return signal

    def encode(self, mels: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Mels (B, T, n_mels) of T <= max_frames, relative lengths (B,) -> states (B, L, out_dim), lengths (B,).

        Raises
        ------
        BackendError
            If T passes the window.
        """
        counts, frames = frame_counts(lens, mels.shape[1]), mels.shape[1]
        if frames > self.max_frames:
            raise BackendError("mels", f"{frames} frames in a window of {self.max_frames}", "shorten the dialogue")
        if self.full_window:
            mels = nn.functional.pad(mels, (0, 0, 0, self.max_frames - frames))
        with nullcontext() if self.dtype == torch.float32 else torch.autocast(mels.device.type, self.dtype):
            return self._encode(mels, counts)

    def encode_window(self, mels: Tensor, padding: Tensor) -> Tensor:
        """Mels (T, n_mels) of one recording -> states (max_frames / 2, out_dim) of the whole window.

        As Hugging Face's, whatever ``full_window`` says: what follows the
        recording is filled with ``padding``, a number, and is not masked.
        """
        whole = mels.new_zeros(self.max_frames, mels.shape[1]) + padding
        whole[: len(mels)] = mels
        with nullcontext() if self.dtype == torch.float32 else torch.autocast(mels.device.type, self.dtype):
            return self._encode(whole[None], torch.tensor([self.max_frames], device=mels.device))[0][0]

    def _encode(self, mels: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        valid = valid_mask(counts, mels.shape[1]) | self.full_window
        hidden = mels.masked_fill(~valid[..., None], 0.0).transpose(1, 2)
        hidden = nn.functional.gelu(self.encoder.conv1(hidden)).masked_fill(~valid[:, None, :], 0.0)
        hidden = nn.functional.gelu(self.encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + self.encoder.embed_positions.weight[: hidden.shape[1]]
        hidden = nn.functional.dropout(hidden, self.encoder.dropout, self.training)
        counts = torch.div(counts + 1, 2, rounding_mode="floor")
        seen = torch.full_like(counts, hidden.shape[1]) if self.full_window else counts
        # Frames end to end: no padding is computed, and no mask is needed.
        packed = self._attend(hidden[valid_mask(seen, hidden.shape[1])][None], seen.tolist())
        states, _ = pack(packed[0], seen)
        states = states[:, : int(counts.max())]
        outside = ~valid_mask(counts, states.shape[1])
        return states.masked_fill(outside[..., None], 0.0), relative_lengths(counts, states.shape[1])

    def _attend(self, packed: Tensor, counts: Sequence[int]) -> Tensor:
        for layer in self.encoder.layers:
            packed = layer(packed, None, counts=counts)
        return self.encoder.layer_norm(packed)

    def rehearse(self, counts: Sequence[int]) -> Tensor:
        """Its layers over so many mel frames a sequence, for a dry run on the meta device: only memory counts."""
        states = [-(-count // 2) for count in counts]
        # Autocast knows no meta device; that norms and residual stream stay in float32 is passed over.
        self.encoder.to(self.dtype).config._attn_implementation = REHEARSED
        packed = torch.empty(1, sum(states), self.out_dim, dtype=self.dtype, device="meta", requires_grad=True)
        return self._attend(packed, states)


def _identity(source: str | Path, revision: str | None) -> tuple[str, str | None]:
    return (str(Path(source).expanduser().resolve()), None) if is_folder(source) else (str(source), revision)


def _front_end(source: str | Path, config: WhisperConfig, revision: str | None) -> WhisperFeatureExtractor:
    if is_planning() and not is_folder(source):
        return WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    with naming(source):
        refuse_huge_filters(source, revision)
        return WhisperFeatureExtractor.from_pretrained(source, revision=revision)


def _is_encoder(key: str) -> bool:
    return key.removeprefix("model.").startswith("encoder.")
