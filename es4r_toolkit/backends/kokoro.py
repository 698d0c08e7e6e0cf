"""KokoroSynthesizer: Kokoro-82M, a small voice whose style is chosen among packs, not heard from a recording."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import threading
import types
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from es4r_toolkit.backends.checkpoints import check_weights, is_planning, plan
from es4r_toolkit.backends.phonemes import EspeakPhonemizer, sentences
from es4r_toolkit.backends.randomness import own_random_numbers
from es4r_toolkit.errors import BackendError, require
from es4r_toolkit.lobes.energy_strategy import Prosody

PLAIN = Prosody()
CONFIG, WEIGHTS, VOICES = "config.json", "model.safetensors", "voices.safetensors"
INSTALL = "pip install --no-deps kokoro==0.9.4 && pip install 'es4r-toolkit[kokoro]'"
MODULES = ("bert", "bert_encoder", "predictor", "decoder", "text_encoder")
RATE = 24000  # Hz
MOST_PHONEMES = 510  # what PL-BERT reads, and the rows of a voice pack
PEAK = 0.99
_IMPORTING = threading.Lock()

# espeak-ng's American IPA to the symbols that Kokoro was trained on (those of misaki), the longer first.
SYMBOLS = {
    "ɜːɹ": "ɜɹ",
    "aɪ": "I",
    "aʊ": "W",
    "eɪ": "A",
    "oʊ": "O",
    "ɔɪ": "Y",
    "dʒ": "ʤ",
    "tʃ": "ʧ",
    "ɜː": "ɜɹ",
    "ɪə": "iə",
    "ɚ": "əɹ",
    "ɐ": "ə",
    "ɬ": "l",
    "ɾ": "T",
    "ʔ": "t",
    "ʲ": "",
    "ː": "",
    "̃": "",
    "̩": "",
    "r": "ɹ",
    "x": "k",
    "ç": "k",
    "e": "A",
    "o": "ɔ",
}


class KokoroSynthesizer(nn.Module):
    """Kokoro-82M by the package ``kokoro``, from local files.

    It has no style encoder: a style vector from StyleFuser means nothing to
    it. A *voice pack* holds its styles, one for each number of phonemes, and
    the strategy of a reply chooses among packs, or blends them by its
    weights. ``rate`` is its own speed; ``pitch_shift`` moves the predicted F0
    (ours); ``energy`` is a gain; ``expressiveness`` is not honoured.

    Arguments
    ---------
    source : str or Path
        A folder with ``config.json``, ``model.safetensors`` and
        ``voices.safetensors``; ``es4r convert-kokoro`` makes it of what its
        authors publish.
    voice : str
        The pack that speaks where no strategy asks for another.
    strategy_voices : mapping, optional
        Strategy -> pack; a strategy that is not named takes ``voice``.
    language : str
        espeak-ng's voice for the phonemes.
    weights : int, optional
        How many numbers the checkpoint holds, for dry runs.

    Raises
    ------
    BackendError
        If the package, the source or a voice is missing, or the weights do not fit.
    """

    sample_rate = RATE
    style_dim = None
    honours = frozenset({"rate", "pitch_shift", "energy"})

    def __init__(
        self,
        source: str | Path,
        voice: str = "af_heart",
        strategy_voices: Mapping[str, str] | None = None,
        language: str = "en-us",
        weights: int | None = None,
    ):
        super().__init__()
        self.voice, self.strategy_voices = voice, dict(strategy_voices or {})
        self.phonemes, self._lock = EspeakPhonemizer(language), threading.Lock()
        if is_planning():
            self.planned = weights or 0
            plan(source, self.planned, torch.float32)
            return
        folder = Path(source).expanduser()
        for name in (CONFIG, WEIGHTS, VOICES):
            if not (folder / name).is_file():
                raise BackendError(folder, f"has no {name}", "make it of published files: es4r convert-kokoro")
        self.model = build_model(json.loads((folder / CONFIG).read_text(encoding="utf-8")), folder)
        try:
            weights = load_file(folder / WEIGHTS)
            packs = load_file(folder / VOICES)
        except (SafetensorError, OSError) as fault:
            raise BackendError(folder, f"cannot be read ({fault})", "convert it again") from fault
        check_weights(self.model.state_dict(), weights, folder / WEIGHTS)
        self.model.load_state_dict(weights)
        wanted = sorted({voice, *self.strategy_voices.values()})
        for name in wanted:
            if name not in packs:
                raise BackendError(f"voice {name!r}", f"is not in {folder}", f"use one of {', '.join(sorted(packs))}")
        self.names = wanted
        self.register_buffer("packs", torch.stack([packs[name].flatten(1) for name in wanted]), persistent=False)
        self.model.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> KokoroSynthesizer:
        """It stays in eval mode: it is never trained here."""
        return super().train(False)

    def style(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Kokoro has no style encoder: always a BackendError."""
        raise BackendError("kokoro", "has no style encoder", "use StyleTTS2 for the style of a recording")

    def strategy_style(self, weights: Mapping[str, float]) -> Tensor:
        """Weights over strategies -> shares of each pack (V,), in the order of ``names``."""
        shares = torch.zeros(len(self.names))
        for strategy, weight in weights.items():
            shares[self.names.index(self.strategy_voices.get(strategy, self.voice))] += weight
        return shares / shares.sum()

    def synthesize(self, text: str, style: Tensor | None = None, prosody: Prosody = PLAIN) -> Tensor:
        """A text -> float32 waveform (samples,) within [-1, 1] at ``sample_rate``.

        Arguments
        ---------
        text : str
            One of more phonemes than PL-BERT reads is spoken in pieces.
        style : Tensor (V,), optional
            Shares of packs, from ``strategy_style``; ``voice`` alone where left out.
        prosody : Prosody

        Raises
        ------
        BackendError
            If there is nothing to say, or the style is none of these shares.
        """
        require(prosody.rate > 0, "prosody.rate", prosody.rate, "must be positive")
        if style is None:
            style = self.strategy_style({"": 1.0})
        if style.shape != (len(self.names),):
            given = f"was given a style of shape {tuple(style.shape)}, not shares of {len(self.names)} voice packs"
            raise BackendError("kokoro", given, "take strategy_style, or none")
        waveform = torch.cat([self._say(piece, style, prosody) for piece in self._pieces(text)])
        waveform = waveform * 10 ** (prosody.energy / 20)
        peak = float(waveform.abs().max())
        return waveform * (PEAK / peak) if peak > 1 else waveform

    def stream(self, text: str, style: Tensor | None = None, prosody: Prosody = PLAIN) -> Iterator[Tensor]:
        """The same, a sentence at a time; each waveform is ready before the next is begun."""
        for sentence in sentences(text):
            yield self.synthesize(sentence, style, prosody)

    def _pieces(self, text: str) -> Iterator[str]:
        piece = ""
        for word in to_symbols(self.phonemes(text)).split():
            for start in range(0, len(word), MOST_PHONEMES):
                part = word[start : start + MOST_PHONEMES]
                if piece and len(piece) + 1 + len(part) > MOST_PHONEMES:
                    yield piece
                    piece = ""
                piece = f"{piece} {part}" if piece else part
        if piece:
            yield piece

    @torch.no_grad()
    def _say(self, phonemes: str, style: Tensor, prosody: Prosody) -> Tensor:
        row = self.packs[:, min(len(phonemes), self.packs.shape[1]) - 1]
        reference = (style.to(row)[:, None] * row).sum(0, keepdim=True)
        predictor = self.model.predictor
        predict, factor = type(predictor).F0Ntrain, 2 ** (prosody.pitch_shift / 12)

        def shifted(*given: Tensor) -> tuple[Tensor, Tensor]:
            pitch, energy = predict(predictor, *given)
            return pitch * factor, energy

        # The model offers no other place between its predictor and its decoder.
        with self._lock, own_random_numbers(0):
            predictor.F0Ntrain = shifted
            try:
                # Its source module draws noise and phases.
                return self.model(phonemes, reference, speed=prosody.rate).flatten().float().cpu()
            finally:
                del predictor.F0Ntrain


def to_symbols(phonemes: str) -> str:
    """espeak-ng's American IPA in the symbols of Kokoro.

    Example
    -------
    >>> to_symbols("dʒˈʌst tʃˈiːz, ɹˈaɪt")
    'ʤˈʌst ʧˈiz, ɹˈIt'
    """
    for ipa, symbol in SYMBOLS.items():
        phonemes = phonemes.replace(ipa, symbol)
    return phonemes


def build_model(config: Mapping[str, Any], source: str | Path) -> nn.Module:
    """Kokoro's model, untrained, by the ``config.json`` of a checkpoint."""
    model_class = _model_class()
    with tempfile.TemporaryDirectory() as folder:
        # Its constructor ends by reading a pickle: one with nothing in it.
        nothing = Path(folder) / "nothing.pth"
        torch.save({}, nothing)
        try:
            return model_class(repo_id="local", config=dict(config), model=str(nothing))
        except (KeyError, TypeError) as fault:
            raise BackendError(source, f"its configuration does not fit ({fault!r})", "convert it again") from fault


def _model_class() -> type[nn.Module]:
    spec = find_spec("kokoro")
    if spec is None:
        raise BackendError("kokoro", "is not installed", INSTALL)
    with _IMPORTING:
        if "kokoro.model" in sys.modules:
            return sys.modules["kokoro.model"].KModel
        known = sys.modules.get("kokoro")
        # The package's own start imports its text front end, spaCy and all; the model needs none of it.
        bare = types.ModuleType("kokoro")
        bare.__path__ = list(spec.submodule_search_locations)
        sys.modules["kokoro"] = bare
        try:
            importlib.import_module("kokoro.model")
        except ImportError as fault:
            raise BackendError("kokoro", f"cannot be imported ({fault})", INSTALL) from fault
        finally:
            del sys.modules["kokoro"]
            if known is not None:
                sys.modules["kokoro"] = known
    return sys.modules["kokoro.model"].KModel
