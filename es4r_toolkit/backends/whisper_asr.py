"""WhisperRecognizer: the decoder half of a Whisper checkpoint, on the encoder that the pipeline has already."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, WhisperConfig, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from es4r_toolkit.backends.checkpoints import is_folder, is_planning, load_config, load_weights, naming
from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.errors import BackendError

RATE = 16000  # Hz, that of every Whisper


class WhisperRecognizer(nn.Module):
    """Writes down speech in any language that its checkpoint knows.

    Where the pipeline's speech encoder is of the same checkpoint
    (``share_encoder``), its weights and its log-mels are taken: loaded once,
    computed once. The encoder itself runs once more, since the pipeline's run
    hears attended frames.

    Arguments
    ---------
    source : str or Path
        Hub name or local folder of a Whisper checkpoint (safetensors).
    language : str, optional
        Such as ``en``; found out for each 30 s where left out.
    revision : str, optional
        Branch, tag or commit on the hub.
    architecture : mapping, optional
        Sizes of a hub checkpoint, for dry runs: keys of its ``config.json``.

    Raises
    ------
    BackendError
        If the source is missing, is no Whisper or does not know the language.
    """

    name = "whisper"

    def __init__(
        self,
        source: str | Path,
        language: str | None = None,
        revision: str | None = None,
        architecture: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        whole = load_config(source, architecture, revision)
        if not isinstance(whole, WhisperConfig):
            raise BackendError(source, f"is a {whole.model_type}, not a Whisper", "name a Whisper checkpoint")
        if whole.decoder_layers < 1:
            raise BackendError(source, "is an encoder without a decoder", "name a whole Whisper checkpoint")
        self._load_encoder = partial(WhisperSpeechEncoder, source, revision=revision, architecture=architecture)
        self.identity = f"{self.name} {source} {revision or ''} {language or ''}".strip()
        self.source, self.revision, self.sample_rate = source, revision, RATE
        self.encoder: WhisperSpeechEncoder | None = None
        self.shares_features = False
        config = deepcopy(whole)
        config.encoder_layers = 0
        options = {"revision": revision, "dtype": torch.float32}
        self.model = load_weights(WhisperForConditionalGeneration, source, config, _is_decoder, whole, **options)
        # Only its decoder is asked; the states come from the encoder above.
        self.model.model.encoder.layers, self.model.model.encoder.layer_norm = nn.ModuleList(), nn.Identity()
        self.model.requires_grad_(False)
        self.tokenizer = None
        if not is_planning() or is_folder(source):
            with naming(source):
                self.tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        self.options: dict[str, Any] = {"do_sample": False, "num_beams": 1}
        knows = getattr(self.model.generation_config, "lang_to_id", None) or {}
        if knows:
            self.options["task"] = "transcribe"
        if language is not None and self.tokenizer is not None:
            if f"<|{language}|>" not in knows:
                known = ", ".join(sorted(token.strip("<|>") for token in knows)) or "English only, by no name"
                raise BackendError(source, f"does not know language {language!r}", f"it knows {known}")
            self.options["language"] = language
        self.eval()

    def share_encoder(self, encoder: nn.Module) -> None:
        """Take the pipeline's encoder where it is frozen and of the same checkpoint, or load one."""
        self.shares_features = isinstance(encoder, WhisperSpeechEncoder) and encoder.is_of(self.source, self.revision)
        self.encoder = encoder if self.shares_features else self._load_encoder()

    def train(self, mode: bool = True) -> WhisperRecognizer:
        """It stays in eval mode, as a frozen encoder does."""
        return super().train(False)

    def transcribe(self, waveform: Tensor) -> str:
        """A recording (samples,) within [-1, 1] at ``sample_rate`` -> its words."""
        if self.encoder is None:
            self.encoder = self._load_encoder().to(next(self.model.parameters()).device)
        waveform = waveform.to(next(self.encoder.parameters()).device)
        mels, _ = self.encoder.features(waveform[None], torch.ones(1, device=waveform.device))
        return self.transcribe_features(mels[0])

    @torch.no_grad()
    def transcribe_features(self, mels: Tensor) -> str:
        """The log-mels of one recording (T, n_mels), as its encoder makes them -> its words."""
        words = []
        for window in mels.split(self.encoder.max_frames):
            states = self.encoder.encode_window(window, silence_beside(mels))
            ids = self.model.generate(encoder_outputs=BaseModelOutput(states[None]), **self.options)
            words.append(self.tokenizer.decode(ids[0], skip_special_tokens=True).strip())
        return " ".join(word for word in words if word)


def silence_beside(mels: Tensor) -> Tensor:
    """What Whisper's extractor makes of silence after a recording with these log-mels (T, n_mels)."""
    # Eight decades below the loudest value or at the absolute floor, then scaled by (x + 4) / 4.
    return torch.maximum(mels.max() - 2.0, mels.new_tensor(-1.5))


def _is_decoder(key: str) -> bool:
    return key.removeprefix("model.").startswith("decoder.")
