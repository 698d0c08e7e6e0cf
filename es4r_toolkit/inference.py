"""EmpathyResponder: a trained model, ready to answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor

from es4r_toolkit.data.audio import load_turn
from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.dialogue import Dialogue
from es4r_toolkit.errors import BackendError, ConfigError, require
from es4r_toolkit.hparams import build, localize, refuse_foreign_tags
from es4r_toolkit.pipeline import EmpathyPipeline
from es4r_toolkit.stages.synthesis import SpeechPlan

SHIPPED_MODEL = Path(__file__).parent / "assets" / "affectprobe-small"
MODEL_FILE, WEIGHTS_FILE = "model.yaml", "trained.safetensors"
NOTICE = "The voice is synthetic."


@dataclass(frozen=True)
class Response:
    """One answer.

    Attributes
    ----------
    text : str
    plan : SpeechPlan
        Strategy, energies and style weights.
    waveform : Tensor (samples,)
    sample_rate : int
        Hz.
    transcripts : list of dict
        Role, text and source of each history turn: ``transcript``, or the
        name of the recognizer that wrote it down.
    dropped_turns : int
        Oldest turns that the speech encoder's window had no room for.
    timings : dict of str to float
        Seconds by stage: decoding, recognition, understanding, generation, synthesis.
    honours : frozenset of str
        Which parts of the prosody the voice follows.
    """

    text: str
    plan: SpeechPlan
    waveform: Tensor
    sample_rate: int
    transcripts: list[dict[str, str]]
    dropped_turns: int
    timings: dict[str, float]
    honours: frozenset[str] = frozenset()

    def as_dict(self) -> dict[str, Any]:
        """All but the sound, as plain values."""
        strategy = self.plan.strategy
        return {
            "text": self.text,
            "strategy": strategy.name,
            "strategy_weights": strategy.weights,
            "energy_change": strategy.change,
            "relative_energy_change": strategy.relative_change,
            "prosody": asdict(strategy.prosody),
            "honours": sorted(self.honours),
            "energies": list(self.plan.energies),
            "style_weights": list(self.plan.style_weights),
            "transcripts": self.transcripts,
            "dropped_turns": self.dropped_turns,
            "timings": self.timings,
            "notice": NOTICE,
        }


class EmpathyResponder:
    """Answers spoken dialogues in text and speech.

    Arguments
    ---------
    pipeline : EmpathyPipeline
        With its trained weights loaded; it is put into eval mode.
    precision : str
        ``fp32``, or ``bf16`` to compute under bfloat16 autocast.

    Raises
    ------
    ConfigError
        If the precision is another.

    Example
    -------
    >>> responder = EmpathyResponder.from_hparams()              # the small model in the package
    >>> responder.pipeline.sample_rate
    16000
    """

    def __init__(self, pipeline: EmpathyPipeline, precision: str = "fp32"):
        require(precision in ("fp32", "bf16"), "precision", precision, "must be fp32 or bf16")
        self.pipeline, self.precision = pipeline.eval(), precision

    @classmethod
    def from_hparams(
        cls,
        source: str | Path | None = None,
        savedir: str | Path | None = None,
        run_opts: Mapping[str, Any] | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> EmpathyResponder:
        """Load a model folder that training exported.

        Arguments
        ---------
        source : str or Path, optional
            Local folder or hub name; the small model in the package where left out.
        savedir : str or Path, optional
            Where a hub model is kept.
        run_opts : mapping, optional
            ``device``, such as ``cuda:0``, the processor where left out;
            ``precision``, ``fp32`` where left out, or ``bf16``.
        revision : str, optional
            Branch, tag or commit on the hub.
        trust_remote_code : bool
            Let the model's YAML construct classes from outside this package.

        Raises
        ------
        BackendError
            If there is no such model, or its files do not fit one another.
        ConfigError
            If its YAML asks for anything but this package's building blocks.
        """
        folder = _folder(SHIPPED_MODEL if source is None else source, savedir, revision)
        file = folder / MODEL_FILE
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as fault:
            raise ConfigError(file, f"is not UTF-8 ({fault})", "export the model again") from fault
        if not trust_remote_code:
            refuse_foreign_tags(text, file)
        pipeline = build(localize(text, folder)).get("pipeline")
        if not isinstance(pipeline, EmpathyPipeline):
            raise ConfigError(file, "builds no pipeline", "name the model/ folder of a training run")
        pipeline.load_trained(folder / WEIGHTS_FILE)
        options = {"device": "cpu", "precision": "fp32", **(run_opts or {})}
        return cls(pipeline.to(options["device"]), options["precision"])

    @torch.no_grad()
    def respond(self, dialogue: Dialogue, **options: Any) -> Response:
        """Answer one dialogue.

        Arguments
        ---------
        dialogue : Dialogue
            Its history with audio and, where the model has no recognizer, text; a response in it is not looked at.
        options
            ``temperature`` (0 is greedy), ``top_k``, ``top_p`` and ``repetition_penalty``; what is left out is as
            the language model's own generation config says.

        Raises
        ------
        AudioError
            If a recording cannot be used.
        BackendError
            If the voice cannot speak.
        """
        clock = _Clock()
        batch = self.batch(dialogue)
        clock.lap("decoding")
        batch = self.pipeline.transcribed(batch)
        clock.lap("recognition")
        with self._autocast():
            context = self.pipeline.context(batch)
            clock.lap("understanding")
            (text,) = self.pipeline.generation.generate(context, **options)
            clock.lap("generation")
        (plan,) = self.pipeline.plan(batch)
        waveform = self.pipeline.synthesis.speak(text, plan)
        clock.lap("synthesis")
        transcripts = [
            {"role": turn.role, "text": turn.text, "source": turn.recognizer or "transcript"}
            for turn in batch.dialogues[0].history
        ]
        dropped = int(context.heard.dropped[0]) if context.heard is not None else 0
        voice = self.pipeline.synthesis.voice
        return Response(text, plan, waveform, voice.sample_rate, transcripts, dropped, clock.laps, voice.honours)

    def _autocast(self) -> AbstractContextManager:
        device = next(self.pipeline.parameters()).device.type
        return torch.autocast(device, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def batch(self, dialogue: Dialogue) -> DialogueBatch:
        """One dialogue as a batch on the model's device, its recordings decoded."""
        waveforms = [load_turn(turn, self.pipeline.sample_rate) for turn in dialogue.history]
        return DialogueBatch.of([dialogue], [waveforms]).to(next(self.pipeline.parameters()).device)


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 4), now


def _folder(source: str | Path, savedir: str | Path | None, revision: str | None) -> Path:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or str(source)[:1] in ".~" or str(source).count("/") != 1:
            raise BackendError(source, "no such model folder", "name the model/ folder of a training run")
        wanted = ["*.yaml", "*.json", "*.jinja", "*.safetensors"]
        try:
            folder = Path(snapshot_download(str(source), revision=revision, local_dir=savedir, allow_patterns=wanted))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as fault:
            reason = str(fault).strip().split("\n")[0][:200]
            raise BackendError(source, f"is no folder, and the hub gives none ({reason})", "check the name") from fault
    for name in (MODEL_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise BackendError(folder, f"has no {name}", "name the model/ folder of a training run")
    return folder
