"""StyleTTS2Synthesizer: the paper's voice, which speaks in the style of a recording."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from nltk.tokenize import NLTKWordTokenizer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchaudio.functional import resample
from torchaudio.transforms import MelSpectrogram

from es4r_toolkit.backends.checkpoints import check_weights, digest, is_planning, plan
from es4r_toolkit.backends.phonemes import EspeakPhonemizer, sentences
from es4r_toolkit.backends.randomness import own_random_numbers
from es4r_toolkit.errors import BackendError, ConfigError, require
from es4r_toolkit.lobes.energy_strategy import Prosody
from es4r_toolkit.trust import read_yaml, refuse_foreign_tags

logger = logging.getLogger(__name__)

PLAIN = Prosody()
WEIGHTS, CONFIG, PLBERT = "model.safetensors", "config.yml", "plbert.yml"
INSTALL = "pip install --no-deps styletts2==0.1.6 && pip install 'es4r-toolkit[styletts2]'"
# What is needed to speak; the rest of a checkpoint is for training.
MODULES = (
    "bert",
    "bert_encoder",
    "predictor",
    "decoder",
    "text_encoder",
    "predictor_encoder",
    "style_encoder",
    "diffusion",
)
# One network under two names.
TWIN, KEPT = "diffusion.diffusion.net.", "diffusion.unet."

RATE = 24000  # Hz
HOP = 300  # samples of a mel frame
FRAME = 600  # samples that one frame of predicted duration becomes
MEL_MEAN, MEL_SCALE = -4.0, 4.0
SHORTEST, PADDED = 0.1, 1.0  # seconds of speech in a reference: refused below the first, repeated up to the second
QUIET = 30.0  # dB below the loudest: trimmed off a reference's ends
MOST_TOKENS = 510  # PL-BERT reads 512
FEWEST_TOKENS = 25  # shorter texts come out as noise, and are said more than once
TAIL = 50  # samples of a pulse that the decoder ends with
PEAK = 0.99

SYMBOLS = (
    "$"
    ';:,.!?¡¿—…"«»“” '
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    "ɑɐɒæɓʙβɔɕçɗɖðʤəɘɚɛɜɝɞɟʄɡɠɢʛɦɧħɥʜɨɪʝɭɬɫɮʟɱɯɰŋɳɲɴøɵɸθœɶʘɹɺɾɻʀʁɽʂʃʈʧʉʊʋⱱʌɣɤʍχʎʏʑʐʒʔʡʕʢǀǁǂǃˈˌːˑʼʴʰʱʲʷˠˤ˞↓↑→↗↘'̩'ᵻ"
)


class Spoken(NamedTuple):
    """Samples of a text's tokens, and of how many frames each is."""

    waveform: Tensor
    durations: Tensor


class StyleTTS2Synthesizer(nn.Module):
    """StyleTTS 2 (Li et al., NeurIPS 2023), several speakers, by the package ``styletts2``.

    A style vector is what the model's two style encoders make of a recording:
    half of it timbre, half prosody. ``rate`` divides predicted durations,
    ``pitch_shift`` moves the predicted F0, ``expressiveness`` scales the
    diffusion's guidance by the text (``embedding_scale``), ``energy`` is a
    gain (ES4R gives the first and the third, its mapping is ours). The same
    text and style give the same samples, and the global random state is left
    alone.

    Arguments
    ---------
    source : str or Path
        A folder, or a repository of the hub, with ``model.safetensors``,
        ``config.yml`` and ``plbert.yml``; ``es4r convert-styletts2`` makes it
        of what its authors publish.
    alpha, beta : float
        How much timbre and prosody follow the text in place of the style
        vector, 0 to 1; 0.3 and 0.7 are StyleTTS 2's defaults.
    diffusion_steps : int
        At least 3.
    language : str
        espeak-ng's voice for the phonemes.
    reference : str or Path, optional
        A recording whose style is taken where none is given.
    seed : int
        Of the diffusion's and the decoder's noise.
    revision : str, optional
        Branch, tag or commit on the hub.
    weights : int, optional
        How many numbers the checkpoint holds, for dry runs.

    Raises
    ------
    BackendError
        If the package or the source is missing, or the weights do not fit.
    """

    sample_rate = RATE
    honours = frozenset(field.name for field in fields(Prosody))

    def __init__(
        self,
        source: str | Path,
        alpha: float = 0.3,
        beta: float = 0.7,
        diffusion_steps: int = 5,
        language: str = "en-us",
        reference: str | Path | None = None,
        seed: int = 0,
        revision: str | None = None,
        weights: int | None = None,
    ):
        super().__init__()
        for name, value in (("alpha", alpha), ("beta", beta)):
            require(0 <= value <= 1, name, value, "must lie in [0, 1]")
        require(diffusion_steps >= 3, "diffusion_steps", diffusion_steps, "must be at least 3")
        self.alpha, self.beta, self.steps, self.seed, self.reference = alpha, beta, diffusion_steps, seed, reference
        self.phonemes, self.words = EspeakPhonemizer(language), NLTKWordTokenizer()
        self._ids = {symbol: place for place, symbol in enumerate(SYMBOLS)}
        self.style_dim = 256
        if is_planning():
            self.planned = weights or 0
            plan(source, self.planned, torch.float32)
            return
        folder = _folder(source, revision)
        config = read_settings(folder / CONFIG)
        self.parts, self.style_half = build_parts(config, read_settings(folder / PLBERT), folder)
        self.style_dim = 2 * self.style_half
        _load(self.parts, folder / WEIGHTS)
        self.parts.requires_grad_(False)
        self.shifts_states = config["model_params"]["decoder"]["type"] == "hifigan"
        # Its authors built the mel filters for 16 kHz and fed them 24 kHz: the weights expect it.
        self.mel = MelSpectrogram(sample_rate=16000, n_mels=80, n_fft=2048, win_length=1200, hop_length=HOP)
        self.eval()

    @property
    def style_settings(self) -> dict[str, Any]:
        """Everything that style vectors depend on."""
        weights = [value for encoder in self._style_encoders() for value in encoder.state_dict().values()]
        transform = digest([self.mel.spectrogram.window, self.mel.mel_scale.fb])
        mel = {"rate": RATE, "hop": HOP, "mean": MEL_MEAN, "scale": MEL_SCALE, "transform": transform}
        speech = {"shortest": SHORTEST, "padded": PADDED, "quiet": QUIET}
        return {"style": "StyleTTS 2", "mel": mel, "speech": speech, "weights": digest(weights)}

    def train(self, mode: bool = True) -> StyleTTS2Synthesizer:
        """It stays in eval mode: it is never trained here."""
        return super().train(False)

    @torch.no_grad()
    def style(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """A recording (samples,) -> its style vector (style_dim,).

        Silence is trimmed off its ends; less than a second of speech is repeated up to one.

        Raises
        ------
        BackendError
            If it holds less than a tenth of a second of speech.
        """
        speech = _trim(resample(waveform.float(), sample_rate, RATE)) if len(waveform) else waveform
        if len(speech) < SHORTEST * RATE:
            held = f"holds {len(speech) / RATE:.2f} s of speech, less than {SHORTEST} s"
            raise BackendError("reference of a style", held, "give a longer recording")
        if len(speech) < PADDED * RATE:
            speech = speech.repeat(-(-int(PADDED * RATE) // len(speech)))
        mel = (torch.log(1e-5 + self.mel(speech.to(self.mel.spectrogram.window))) - MEL_MEAN) / MEL_SCALE
        return torch.cat([encoder(mel[None, None])[0] for encoder in self._style_encoders()])

    def _style_encoders(self) -> tuple[nn.Module, nn.Module]:
        """Of timbre, and of prosody."""
        return self.parts["style_encoder"], self.parts["predictor_encoder"]

    def synthesize(self, text: str, style: Tensor | None = None, prosody: Prosody = PLAIN) -> Tensor:
        """A text -> float32 waveform (samples,) within [-1, 1] at ``sample_rate``.

        A text of more phonemes than PL-BERT reads is spoken in pieces; one of
        so few that the decoder would give noise is said several times over,
        and the last time is kept, cut where its first phoneme begins.

        Raises
        ------
        BackendError
            If there is nothing to say, or no style to say it in.
        """
        return torch.cat(list(self._speak(text, style, prosody)))

    def stream(self, text: str, style: Tensor | None = None, prosody: Prosody = PLAIN) -> Iterator[Tensor]:
        """The same, a sentence at a time; each waveform is ready before the next is begun."""
        for sentence in sentences(text):
            yield self.synthesize(sentence, style, prosody)

    def _speak(self, text: str, style: Tensor | None, prosody: Prosody) -> Iterator[Tensor]:
        require(prosody.rate > 0, "prosody.rate", prosody.rate, "must be positive")
        require(prosody.expressiveness >= 0, "prosody.expressiveness", prosody.expressiveness, "must not be negative")
        style = self._default_style() if style is None else style
        if style.shape != (self.style_dim,):
            given = f"was given a style of shape {tuple(style.shape)}, not ({self.style_dim},)"
            raise BackendError("styletts2", given, "give what its style() makes")
        for tokens in self._pieces(text):
            times = max(1, -(-FEWEST_TOKENS // len(tokens)))
            again = (times - 1) * [*tokens, self._ids[" "]]
            # Both the diffusion and the decoder draw noise.
            with own_random_numbers(self.seed):
                spoken = self._say([*again, *tokens], style, prosody)
            kept = spoken.waveform
            if times > 1:
                # The first token is the padding that every text begins with.
                kept = kept[int(spoken.durations[: 1 + len(again)].sum()) * FRAME :]
            kept = kept * 10 ** (prosody.energy / 20)
            peak = float(kept.abs().max())
            yield kept * (PEAK / peak) if peak > 1 else kept

    def _pieces(self, text: str) -> Iterator[list[int]]:
        """Token ids, no more at a time than PL-BERT reads, cut between words."""
        words = self.words.tokenize(self.phonemes(text.strip().replace('"', "")))
        piece: list[int] = []
        for word in words:
            known = [self._ids[symbol] for symbol in word if symbol in self._ids]
            if len(known) < len(word):
                logger.debug("phonemes without a symbol are left out of %r", word)
            # A word of its own length at least, however long.
            for start in range(0, len(known), MOST_TOKENS - 2):
                part = known[start : start + MOST_TOKENS - 2]
                if piece and len(piece) + len(part) + 1 > MOST_TOKENS - 2:
                    yield piece
                    piece = []
                piece += [self._ids[" "], *part] if piece else part
        if piece:
            yield piece

    def _default_style(self) -> Tensor:
        if self.reference is None:
            raise BackendError("styletts2", "has no style to speak in", "give a style, or the voice a reference")
        from es4r_toolkit.data.audio import load

        return self.style(load(self.reference, RATE).to(self.mel.spectrogram.window.device), RATE)

    @torch.no_grad()
    def _say(self, tokens: list[int], style: Tensor, prosody: Prosody) -> Spoken:
        parts, device = self.parts, self.mel.spectrogram.window.device
        ids = torch.tensor([[0, *tokens]], device=device)
        lengths, mask = torch.tensor([ids.shape[1]], device=device), torch.zeros_like(ids, dtype=torch.bool)
        reference = style.to(device).float()[None]
        encoded = parts["text_encoder"](ids, lengths, mask)
        context = parts["bert"](ids, attention_mask=(~mask).int())
        drawn = self._draw(context, reference, prosody.expressiveness)
        half = self.style_half
        timbre = self.alpha * drawn[:, :half] + (1 - self.alpha) * reference[:, :half]
        manner = self.beta * drawn[:, half:] + (1 - self.beta) * reference[:, half:]
        predictor = parts["predictor"]
        states = predictor.text_encoder(parts["bert_encoder"](context).transpose(1, 2), manner, lengths, mask)
        shares = predictor.duration_proj(predictor.lstm(states)[0]).sigmoid().sum(-1)[0]
        durations = (shares / prosody.rate).round().clamp(min=1).long()
        alignment = torch.eye(len(durations), device=device).repeat_interleave(durations, dim=1)[None]
        prosodic, acoustic = (self._shift(part @ alignment) for part in (states.transpose(1, 2), encoded))
        pitch, energy = predictor.F0Ntrain(prosodic, manner)
        pitch = pitch * 2 ** (prosody.pitch_shift / 12)
        samples = parts["decoder"](acoustic, pitch, energy, timbre).flatten()
        return Spoken(samples[:-TAIL].float().cpu(), durations.cpu())

    def _draw(self, context: Tensor, reference: Tensor, guidance: float) -> Tensor:
        """A style for this text near the reference, drawn by diffusion."""
        from styletts2.Modules.diffusion.sampler import ADPM2Sampler, DiffusionSampler, KarrasSchedule

        sampler = DiffusionSampler(
            self.parts["diffusion"].diffusion,
            sampler=ADPM2Sampler(),
            # As its authors publish it.
            sigma_schedule=KarrasSchedule(sigma_min=0.0001, sigma_max=3.0, rho=9.0),
            clamp=False,
        )
        noise = torch.randn(1, 1, self.style_dim).to(context.device)
        options = {"embedding": context, "embedding_scale": guidance, "features": reference}
        return sampler(noise, num_steps=self.steps, **options).squeeze(1)

    def _shift(self, states: Tensor) -> Tensor:
        # The HiFi-GAN decoder was trained on states one frame late.
        return torch.cat([states[..., :1], states[..., :-1]], dim=-1) if self.shifts_states else states


def build_parts(config: Mapping[str, Any], plbert: Mapping[str, Any], source: str | Path) -> tuple[nn.ModuleDict, int]:
    """The modules that speak, untrained, and the width of half a style vector.

    Arguments
    ---------
    config, plbert : mapping
        ``config.yml`` of the checkpoint and of its PL-BERT.
    source : str or Path
        What errors name.
    """
    try:
        from munch import munchify
        from styletts2.models import build_model
        from styletts2.Utils.PLBERT.util import CustomAlbert
    except ImportError as fault:
        raise BackendError("styletts2", f"cannot be imported ({fault})", INSTALL) from fault
    from transformers import AlbertConfig

    try:
        bert = CustomAlbert(AlbertConfig(**plbert["model_params"]))
        # Aligner and pitch extractor are for training.
        with warnings.catch_warnings():
            # It asks recurrent layers for a dropout that they have no place for.
            warnings.filterwarnings("ignore", message="dropout option adds dropout", category=UserWarning)
            warnings.filterwarnings("ignore", message=".*weight_norm.*", category=FutureWarning)
            whole = build_model(munchify(config["model_params"]), nn.Identity(), nn.Identity(), bert)
    except (KeyError, TypeError, AttributeError, AssertionError) as fault:
        raise BackendError(source, f"its configuration does not fit ({fault!r})", "convert it again") from fault
    return nn.ModuleDict({name: whole[name] for name in MODULES}), int(config["model_params"]["style_dim"])


def strict_state(parts: nn.ModuleDict, weights: Mapping[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """Weights by the names that the modules have, each of them there and of the right shape.

    Raises
    ------
    BackendError
        If one is missing, left over or of another shape.
    """
    given = dict(weights)
    given |= {TWIN + name.removeprefix(KEPT): value for name, value in weights.items() if name.startswith(KEPT)}
    check_weights(parts.state_dict(), given, source)
    return given


def _load(parts: nn.ModuleDict, path: Path) -> None:
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as fault:
        raise BackendError(path, f"cannot be read ({fault})", "convert the checkpoint again") from fault
    parts.load_state_dict(strict_state(parts, weights, path))


def _folder(source: str | Path, revision: str | None) -> Path:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or str(source)[:1] in ".~" or str(source).count("/") != 1:
            raise BackendError(source, "no such folder", "name what es4r convert-styletts2 has made")
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(str(source), revision=revision, allow_patterns=[WEIGHTS, CONFIG, PLBERT]))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as fault:
            reason = str(fault).strip().split("\n")[0][:200]
            raise BackendError(source, f"is no folder, and the hub gives none ({reason})", "check the name") from fault
    for name in (WEIGHTS, CONFIG, PLBERT):
        if not (folder / name).is_file():
            raise BackendError(folder, f"has no {name}", "make it of a published checkpoint: es4r convert-styletts2")
    return folder


def read_settings(path: Path) -> dict[str, Any]:
    """A configuration of StyleTTS 2 or of its PL-BERT."""
    try:
        text = read_yaml(path)
        refuse_foreign_tags(text, path)
        values = yaml.safe_load(text)
    except (OSError, ValueError, ConfigError, yaml.YAMLError) as fault:
        raise BackendError(path, f"cannot be read ({' '.join(str(fault).split())[:200]})", "convert again") from fault
    if not isinstance(values, dict) or "model_params" not in values:
        raise BackendError(path, "holds no model_params", "take the configuration of the checkpoint")
    return values


def _trim(waveform: Tensor, frame: int = 2048, hop: int = 512) -> Tensor:
    """Without the frames at its ends that are far quieter than its loudest."""
    padded = nn.functional.pad(waveform, (frame // 2, frame // 2))
    power = padded.unfold(0, frame, hop).square().mean(1)
    loud = (power > power.max() * 10 ** (-QUIET / 10)).nonzero().flatten()
    if not len(loud) or power.max() <= 1e-10:
        return waveform[:0]
    return waveform[int(loud[0]) * hop : (int(loud[-1]) + 1) * hop]
