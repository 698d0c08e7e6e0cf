"""What the page offers: models with their presets, and voices for them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from es4r_toolkit.backends.espeak import EspeakSynthesizer
from es4r_toolkit.hparams import plain
from es4r_toolkit.inference import SHIPPED_MODEL, EmpathyResponder

SHIPPED = "small demo model"
OWN_VOICE = "the model's own voice"
AUTOMATIC = "automatic, by the energy"
# Voices of espeak-ng that differ from one another by ear.
ESPEAK_VOICES = {
    "espeak-ng, American, higher": "en-us+f2",
    "espeak-ng, American, lower": "en-us+m3",
    "espeak-ng, British, higher": "en+f3",
    "espeak-ng, British, lower": "en",
}
# The switches by which the two presets of recipes/_shared/preset differ.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "plus": {
        "normalization": "dialogue",
        "residual": True,
        "share_levels": False,
        "context": ["text", "fused"],
        "positions": "turns",
        "match_embeddings": True,
        "full_window": False,
        "strategy_mode": "continuous",
        "strategy_turns": "speaker",
    },
    "paper": {
        "normalization": "none",
        "residual": False,
        "share_levels": True,
        "context": ["fused"],
        "positions": "frames",
        "match_embeddings": False,
        "full_window": True,
        "strategy_mode": "discrete",
        "strategy_turns": "all",
    },
}


def preset_named(switches: Mapping[str, Any] | None) -> str:
    """The name of a model's preset, or of the nearest one and what was changed of it.

    Example
    -------
    >>> preset_named(PRESETS["paper"]), preset_named({**PRESETS["plus"], "residual": False}), preset_named(None)
    ('paper', 'plus, but residual: False', 'none named')
    """
    if not isinstance(switches, Mapping):
        return "none named"
    changed = {
        name: [key for key, value in preset.items() if switches.get(key, value) != value]
        for name, preset in PRESETS.items()
    }
    name = min(changed, key=lambda one: len(changed[one]))
    told = ", ".join(f"{key}: {switches[key]}" for key in changed[name])
    return f"{name}, but {told}" if told else name


@dataclass(frozen=True)
class OfferedModel:
    """A model that the page offers.

    Attributes
    ----------
    name : str
        As the page calls it; no path.
    preset : str
    responder : EmpathyResponder
        With the model's own voice.
    is_shipped : bool
        Whether it is the small one of the package.
    """

    name: str
    preset: str
    responder: EmpathyResponder
    is_shipped: bool = False
    _voiced: dict[str, EmpathyResponder] = field(default_factory=dict, repr=False)
    _voicing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def label(self) -> str:
        """Its name with its preset."""
        return f"{self.name} (preset: {self.preset})"

    @property
    def strategies(self) -> list[str]:
        """The strategies of its table."""
        return list(self.responder.pipeline.synthesis.strategy.prosodies)

    def speaking_as(self, voice: str) -> EmpathyResponder:
        """The model with a voice of the page; each is made once, and the weights are held once."""
        if voice == OWN_VOICE:
            return self.responder
        with self._voicing:
            if voice not in self._voiced:
                self._voiced[voice] = self.responder.with_voice(EspeakSynthesizer(ESPEAK_VOICES[voice]))
            return self._voiced[voice]

    def warm_up(self) -> None:
        """Answer once, so that the first visitor does not wait for what is only done the first time."""
        pipeline, words = self.responder.pipeline, "I am here."
        spoken = self.responder.model.speak(words), pipeline.synthesis.voice.sample_rate
        # A recognizer, where there is one, loads its model too.
        written = "" if pipeline.recognizer is not None else words
        self.responder.conversation().respond(spoken, written, explained=True)


def voices() -> list[str]:
    """The voices that can be chosen here."""
    return [OWN_VOICE, *(ESPEAK_VOICES if find_spec("espeakng_loader") else ())]


def offer(
    sources: Sequence[str],
    run_opts: Mapping[str, Any] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> list[OfferedModel]:
    """Load the models that are named, and the one in the package.

    Arguments
    ---------
    sources : sequence of str
        Folders or hub names, the first chosen to begin with.
    run_opts, revision, trust_remote_code
        As for ``EmpathyResponder.from_hparams``.

    Raises
    ------
    BackendError, ConfigError
        If a model cannot be loaded.
    """
    models: list[OfferedModel] = []
    for source in sources:
        responder = EmpathyResponder.from_hparams(
            source, run_opts=run_opts, revision=revision, trust_remote_code=trust_remote_code
        )
        models.append(OfferedModel(_name(source, models), _preset_of(_model_file(source, revision)), responder))
    shipped = EmpathyResponder.from_hparams(run_opts=run_opts)
    return [*models, OfferedModel(SHIPPED, _preset_of(SHIPPED_MODEL / "model.yaml"), shipped, is_shipped=True)]


def _name(source: str, others: Sequence[OfferedModel]) -> str:
    """The last part of a source that says something; training writes RUN/model."""
    path = Path(source).expanduser()
    if path.is_dir():
        parts = [part for part in path.resolve().parts if part != "model"]
        name = parts[-1]
    else:
        name = source
    taken = {model.name for model in others} | {SHIPPED}
    number = next(number for number in range(1, len(taken) + 2) if _numbered(name, number) not in taken)
    return _numbered(name, number)


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name} ({number})"


def _model_file(source: str, revision: str | None) -> Path:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder / "model.yaml"
    from huggingface_hub import hf_hub_download

    # It was downloaded when the model was loaded.
    return Path(hf_hub_download(source, "model.yaml", revision=revision, local_files_only=True))


def _preset_of(file: Path) -> str:
    return preset_named(plain(file.read_text(encoding="utf-8")).get("preset"))
