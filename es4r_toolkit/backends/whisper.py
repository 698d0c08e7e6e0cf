"""WhisperSpeechEncoder: any Hugging Face Whisper, of any length and with a true mask."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from es4r_toolkit.backends.checkpoints import check_sizes, load_weights, naming
from es4r_toolkit.errors import BackendError
from es4r_toolkit.masks import attention_bias, frame_counts, relative_lengths, valid_mask


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
    revision : str, optional
        Branch, tag or commit on the hub.
    n_mels, out_dim : int, optional
        What the YAML reckons with; checked against the checkpoint.

    Raises
    ------
    BackendError
        If the source is missing, holds no Whisper or one of another size.
    """

    def __init__(
        self,
        source: str | Path,
        freeze: bool = True,
        full_window: bool = False,
        revision: str | None = None,
        n_mels: int | None = None,
        out_dim: int | None = None,
    ):
        super().__init__()
        with naming(source):
            config = WhisperConfig.from_pretrained(source, revision=revision)
            extractor = WhisperFeatureExtractor.from_pretrained(source, revision=revision)
        # Only the encoder is kept, so the decoder's layers are never read.
        config.decoder_layers = 0
        whole = load_weights(WhisperModel, source, _is_encoder, config=config, revision=revision)
        self.encoder = whole.encoder.requires_grad_(not freeze)
        self.encoder.embed_positions.requires_grad_(False)
        self.freeze, self.full_window = freeze, full_window
        if extractor.feature_size != config.num_mel_bins:
            raise BackendError(
                source,
                f"its feature extractor gives {extractor.feature_size} mels, its encoder takes {config.num_mel_bins}",
                "copy the preprocessor_config.json that belongs to this checkpoint",
            )
        self.n_mels, self.out_dim = config.num_mel_bins, config.d_model
        check_sizes(source, self, n_mels=n_mels, out_dim=out_dim)
        self.sample_rate, self.hop, self.n_fft = extractor.sampling_rate, extractor.hop_length, extractor.n_fft
        self.max_frames = config.max_source_positions * self.encoder.conv2.stride[0]
        filters = torch.from_numpy(extractor.mel_filters).float()
        self.register_buffer("mel_filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

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
        waveforms = waveforms.masked_fill(~valid_mask(counts, waveforms.shape[1]), 0.0)
        half = self.n_fft // 2
        mirrored = waveforms[:, 1 : half + 1].flip(1)
        left = nn.functional.pad(mirrored, (half - mirrored.shape[1], 0))
        padded = nn.functional.pad(torch.cat([left, waveforms], dim=1), (0, half + self.hop))
        spectrum = torch.stft(padded, self.n_fft, self.hop, window=self.window, center=False, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        logs = (power.transpose(1, 2) @ self.mel_filters).clamp(min=1e-10).log10()
        counts = torch.div(counts + self.hop - 1, self.hop, rounding_mode="floor")
        valid = valid_mask(counts, int(counts.max()))[..., None]
        logs = logs[:, : valid.shape[1]]
        loudest = logs.masked_fill(~valid, -10.0).amax(dim=(1, 2), keepdim=True)
        mels = ((torch.maximum(logs, loudest - 8.0) + 4.0) / 4.0).masked_fill(~valid, 0.0)
        return mels, relative_lengths(counts, mels.shape[1])

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
        valid = valid_mask(counts, mels.shape[1]) | self.full_window
        hidden = mels.masked_fill(~valid[..., None], 0.0).transpose(1, 2)
        hidden = nn.functional.gelu(self.encoder.conv1(hidden)).masked_fill(~valid[:, None, :], 0.0)
        hidden = nn.functional.gelu(self.encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + self.encoder.embed_positions.weight[: hidden.shape[1]]
        hidden = nn.functional.dropout(hidden, self.encoder.dropout, self.training)
        valid = valid[:, :: self.encoder.conv2.stride[0]]
        bias = None if bool(valid.all()) else attention_bias(valid, hidden.dtype)
        for layer in self.encoder.layers:
            hidden = layer(hidden, bias)
        hidden = self.encoder.layer_norm(hidden)
        counts = torch.div(counts + 1, 2, rounding_mode="floor")
        hidden = hidden[:, : int(counts.max())]
        outside = ~valid_mask(counts, hidden.shape[1])
        return hidden.masked_fill(outside[..., None], 0.0), relative_lengths(counts, hidden.shape[1])


def _is_encoder(key: str) -> bool:
    return key.removeprefix("model.").startswith("encoder.")
