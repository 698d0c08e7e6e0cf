"""HFSpeechEncoder: WavLM, HuBERT and wav2vec 2.0, with a true mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoFeatureExtractor, AutoModel

from es4r_toolkit.backends.attention import REHEARSED
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
from es4r_toolkit.masks import frame_counts, relative_lengths, valid_mask

KINDS = ("wavlm", "hubert", "wav2vec2")
DTYPES = ("float32", "bfloat16")


class HFSpeechEncoder(nn.Module):
    """A self-supervised encoder of raw speech, split where its own feature extractor ends.

    These models have no mel spectrogram before which affect could be
    modelled, so what stands in its place is the output of their convolutional
    feature extractor, one frame for 20 ms of speech: ``features`` gives it,
    the affective attention works on it, and ``encode`` runs what comes after,
    feature projection and transformer (ours; ES4R knows Whisper only).

    Arguments
    ---------
    source : str or Path
        Hub name or local folder of a WavLM, HuBERT or wav2vec 2.0 checkpoint (safetensors).
    freeze : bool
        Whether its weights stay as they are. The feature extractor always does.
    max_frames : int
        The window, in frames: these models take any length, at a cost that
        grows with its square. 1500 are 30 s of frames, and 240 s of a
        dialogue that the downsampler shortens eightfold.
    dtype : str
        ``float32``, or ``bfloat16`` for a frozen encoder, by autocast.
    revision : str, optional
        Branch, tag or commit on the hub.
    architecture : mapping, optional
        Sizes of a hub checkpoint, for dry runs: keys of its ``config.json``.
    n_mels, out_dim : int, optional
        What the YAML reckons with; checked against the checkpoint. ``n_mels``
        is the width of a frame of ``features``.

    Raises
    ------
    BackendError
        If the source is missing, is of another kind or of another size.
    ConfigError
        If a value breaks its rule.
    """

    stride = 1  # frames for a state

    def __init__(
        self,
        source: str | Path,
        freeze: bool = True,
        max_frames: int = 1500,
        dtype: str = "float32",
        revision: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        n_mels: int | None = None,
        out_dim: int | None = None,
    ):
        super().__init__()
        require(max_frames > 0, "max_frames", max_frames, "must be positive")
        require(dtype in DTYPES, "dtype", dtype, f"must be one of {', '.join(DTYPES)}")
        require(freeze or dtype == "float32", "dtype", dtype, "is for a frozen encoder; training needs float32")
        config = load_config(source, architecture, revision)
        if config.model_type not in KINDS:
            raise BackendError(source, f"is a {config.model_type}, none of {', '.join(KINDS)}", "choose its fragment")
        # Skipped layers and masked stretches are for pre-training.
        config.layerdrop, config.apply_spec_augment = 0.0, False
        self.model = load_weights(
            AutoModel, source, config, _is_used, revision=revision, dtype=torch.float32
        ).requires_grad_(not freeze)
        self.model.feature_extractor.requires_grad_(False)
        if getattr(self.model, "masked_spec_embed", None) is not None:
            self.model.masked_spec_embed.requires_grad_(False)
        self.freeze, self.dtype, self.max_frames = freeze, getattr(torch, dtype), max_frames
        front = _front_end(source, revision)
        self.sample_rate, self.normalize = front["sampling_rate"], front["do_normalize"]
        self.kernels, self.strides = list(config.conv_kernel), list(config.conv_stride)
        self.hop = int(torch.tensor(self.strides, device="cpu").prod())
        self.n_mels, self.out_dim = config.conv_dim[-1], config.hidden_size
        check_sizes(source, self, n_mels=n_mels, out_dim=out_dim)

    @property
    def feature_settings(self) -> dict[str, Any]:
        """Everything that the features depend on."""
        weights = digest(self.model.feature_extractor.state_dict().values())
        kind = {"normalize": self.normalize, "dtype": str(self.dtype), "strides": self.strides}
        return {"features": self.model.config.model_type, "sample_rate": self.sample_rate, **kind, "weights": weights}

    @property
    def shortest(self) -> int:
        """Samples that its convolutions need for one frame."""
        samples = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides)):
            samples = (samples - 1) * stride + kernel
        return samples

    def train(self, mode: bool = True) -> HFSpeechEncoder:
        """Switch mode; a frozen encoder stays in eval mode, and so does the feature extractor."""
        super().train(mode and not self.freeze)
        self.model.feature_extractor.eval()
        return self

    @torch.no_grad()
    def features(self, waveforms: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """What the convolutions make of each clip by itself: no clip depends on its neighbours or their padding.

        Arguments
        ---------
        waveforms : Tensor (N, samples)
            At ``sample_rate``, within [-1, 1].
        lens : Tensor (N,)
            Relative lengths.

        Returns
        -------
        frames : Tensor (N, T, n_mels)
            Zero at padding; a clip too short for one frame is padded to it.
        frame_lens : Tensor (N,)
            Relative lengths, at least one frame each.
        """
        clips, kind = [], next(self.model.feature_extractor.parameters()).dtype
        with self._precision(waveforms.device.type):
            # One by one: the group norm of the base models runs over the whole clip, padding and all.
            for waveform, count in zip(waveforms, frame_counts(lens, waveforms.shape[1]).tolist()):
                clip = waveform[:count].to(kind)
                if self.normalize and count > 1:
                    clip = (clip - clip.mean()) / torch.sqrt(clip.var(unbiased=False) + 1e-7)
                clip = nn.functional.pad(clip, (0, max(0, self.shortest - count)))
                clips.append(self.model.feature_extractor(clip[None])[0].transpose(0, 1).to(waveforms.dtype))
        counts = torch.tensor([len(clip) for clip in clips], device=waveforms.device)
        frames = pad_sequence(clips, batch_first=True)
        return frames, relative_lengths(counts, frames.shape[1])

    def encode(self, mels: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T, n_mels) of T <= max_frames, relative lengths (B,) -> states (B, T, out_dim), lengths (B,).

        Raises
        ------
        BackendError
            If T passes the window.
        """
        counts, frames = frame_counts(lens, mels.shape[1]), mels.shape[1]
        if frames > self.max_frames:
            raise BackendError("mels", f"{frames} frames in a window of {self.max_frames}", "shorten the dialogue")
        valid = valid_mask(counts, frames)
        with self._precision(mels.device.type):
            hidden = self.model.feature_projection(mels.masked_fill(~valid[..., None], 0.0))
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            states = self.model.encoder(hidden, attention_mask=valid).last_hidden_state
        return states.to(mels.dtype).masked_fill(~valid[..., None], 0.0), lens

    def _precision(self, device: str) -> Any:
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(device, self.dtype)

    def save(self, folder: str | Path) -> None:
        """Write the encoder as a checkpoint (safetensors)."""
        self.model.save_pretrained(folder)

    def rehearse(self, counts: Sequence[int]) -> Tensor:
        """Its layers over so many frames a sequence, for a dry run on the meta device: only memory counts."""
        if self.model._supports_attention_backend:
            self.model.set_attn_implementation(REHEARSED)
        self.model.to(self.dtype)
        hidden = torch.empty(
            len(counts), max(counts), self.out_dim, dtype=self.dtype, device="meta", requires_grad=True
        )
        return self.model.encoder(hidden).last_hidden_state


def _front_end(source: str | Path, revision: str | None) -> dict[str, Any]:
    """Sample rate, and whether each clip is brought to zero mean and unit variance."""
    if is_planning() and not is_folder(source):
        return {"sampling_rate": 16000, "do_normalize": True}
    with naming(source):
        refuse_huge_filters(source, revision)
        extractor = AutoFeatureExtractor.from_pretrained(source, revision=revision, trust_remote_code=False)
    return {"sampling_rate": extractor.sampling_rate, "do_normalize": extractor.do_normalize}


def _is_used(key: str) -> bool:
    # Only masking in pre-training needs it.
    return not key.endswith("masked_spec_embed")
