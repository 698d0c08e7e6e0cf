"""EmpathyResponder: a trained model, ready to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from es4r_toolkit.data.audio import load_turn, waveform_of
from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.data.heard import HeardTurn
from es4r_toolkit.dialogue import Dialogue, Turn
from es4r_toolkit.errors import ConfigError, require
from es4r_toolkit.inference.conversation import Conversation
from es4r_toolkit.inference.loading import load_pipeline
from es4r_toolkit.inference.model import History, SharedModel
from es4r_toolkit.inference.reply import Reply, WholeDialogue
from es4r_toolkit.inference.response import Clock, Response, dropped_turns, explain, transcripts_of
from es4r_toolkit.inference.streaming import ReplyStream
from es4r_toolkit.pipeline import EmpathyPipeline
from es4r_toolkit.protocols import SpeechSynthesizer

RUN_OPTS = {"device", "precision", "feature_store"}


class EmpathyResponder:
    """Answers spoken dialogues in text and speech.

    Several threads may use one responder: the model computes for one of them
    at a time, a layer or a token, and who streams gets on between the others'
    tokens. What it heard once it remembers, up to half an hour of speech.

    Arguments
    ---------
    pipeline : EmpathyPipeline
        With its trained weights loaded; it is put into eval mode.
    precision : str
        ``fp32``, or ``bf16`` to compute under bfloat16 autocast.
    feature_store : str or Path, optional
        Folder where log-mels and style vectors of recordings are kept beyond the process.

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

    def __init__(self, pipeline: EmpathyPipeline, precision: str = "fp32", feature_store: str | Path | None = None):
        self.model = SharedModel(pipeline, precision, feature_store)

    @property
    def pipeline(self) -> EmpathyPipeline:
        """The model itself, in eval mode."""
        return self.model.pipeline

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
            ``precision``, ``fp32`` where left out, or ``bf16``;
            ``feature_store``, a folder.
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
        pipeline = load_pipeline(source, savedir, revision, trust_remote_code)
        options = {"device": "cpu", **(run_opts or {})}
        strange = sorted(options.keys() - RUN_OPTS)
        require(not strange, "run_opts", strange, f"must be of {', '.join(sorted(RUN_OPTS))}")
        device = options.pop("device")
        try:
            pipeline = pipeline.to(device)
        except (RuntimeError, AssertionError) as fault:
            reason = str(fault).strip().split("\n")[0][:200]
            raise ConfigError("device", f"is {device!r}, where nothing can run ({reason})", "take cpu") from fault
        return cls(pipeline, **options)

    def with_voice(self, voice: SpeechSynthesizer) -> EmpathyResponder:
        """The same model, its weights held once, with another voice."""
        other = object.__new__(EmpathyResponder)
        other.model = self.model.with_voice(voice)
        return other

    @property
    def sample_rate(self) -> int:
        """Of the waveforms that it hears (Hz); what it speaks has the rate of its voice."""
        return self.model.sample_rate

    def respond(
        self, dialogue: History, strategy: str | None = None, explained: bool = False, **options: Any
    ) -> Response:
        """Answer one dialogue.

        Arguments
        ---------
        dialogue : Dialogue or sequence of HeardTurn
            Its history with audio and, where the model has no recognizer, text; a response in it is not looked at.
        strategy : str, optional
            How to speak, whatever the energies say.
        explained : bool
            Also tell where the speech looked in the text.
        options
            ``temperature`` (0 is greedy), ``top_k``, ``top_p`` and ``repetition_penalty``; what is left out is as
            the language model's own generation config says.

        Raises
        ------
        AudioError
            If a recording cannot be used.
        BackendError
            If the voice cannot speak.

        Example
        -------
        >>> from es4r_toolkit.data.manifest import read_manifest
        >>> responder = EmpathyResponder.from_hparams()
        >>> for dialogue in read_manifest("dialogues.jsonl").dialogues:  # doctest: +SKIP
        ...     response = responder.respond(dialogue)
        ...     print(response.text, response.plan.strategy.name, response.waveform.shape)
        """
        return self._respond([dialogue], strategy, explained, **options)[0]

    def respond_batch(
        self, dialogues: Sequence[History], strategy: str | None = None, **options: Any
    ) -> list[Response]:
        """Answer several dialogues at once, each as it would be answered alone.

        Arguments, options and errors are those of ``respond``. The timings of each are those of all together.

        Example
        -------
        >>> responder = EmpathyResponder.from_hparams()
        >>> responder.respond_batch([])
        []
        """
        return self._respond(list(dialogues), strategy, False, **options) if dialogues else []

    def stream(self, dialogue: History, strategy: str | None = None, **options: Any) -> ReplyStream:
        """Answer one dialogue as an iterator of events: what is written and spoken so far.

        Arguments, options and errors are those of ``respond``; errors are raised where the events are read. Further
        options: ``unit``, ``sentence`` or ``clause``: what the voice waits for; ``explained``.

        Returns
        -------
        ReplyStream
            Of ``Transcript``, ``Strategy``, ``TextDelta``, ``AudioChunk``, ``Timings`` and ``End``.

        Example
        -------
        >>> responder = EmpathyResponder.from_hparams()
        >>> with responder.stream(dialogue) as events:  # doctest: +SKIP
        ...     for event in events:
        ...         if isinstance(event, AudioChunk):
        ...             play(event.waveform, event.sample_rate)
        """
        return ReplyStream(Reply(self.model, WholeDialogue(self.model, dialogue), strategy, **options))

    def conversation(self) -> Conversation:
        """A dialogue that goes on turn by turn, and remembers what was said.

        Example
        -------
        >>> talk = EmpathyResponder.from_hparams().conversation()
        >>> reply = talk.respond("hello.wav")  # doctest: +SKIP
        >>> len(talk)
        0
        """
        return Conversation(self.model)

    def hear(self, turn: Turn, waveform: Tensor | None = None) -> HeardTurn:
        """All of one turn that does not depend on its dialogue; what was heard before is only looked up.

        Arguments
        ---------
        turn : Turn
            With its recording, where there is no waveform.
        waveform : Tensor (samples,), optional
            At ``sample_rate``.
        """
        if waveform is not None:
            waveform = waveform_of(waveform, self.sample_rate, self.sample_rate, name="the turn")
        return self.model.hear([turn], [waveform], Clock(), "the turn")[0]

    def batch(self, dialogue: Dialogue) -> DialogueBatch:
        """One dialogue as a batch on the model's device, its recordings decoded."""
        waveforms = [load_turn(turn, self.sample_rate) for turn in dialogue.history]
        return DialogueBatch.of([dialogue], [waveforms]).to(self.pipeline.device)

    def _respond(
        self, histories: Sequence[History], strategy: str | None, explained: bool, **options: Any
    ) -> list[Response]:
        clock = Clock()
        batch = self.model.listen(histories, clock)
        with self.model.computing():
            context = self.pipeline.context(batch, return_attention=explained)
            clock.lap("understanding")
            replies = self.pipeline.generation.write(context, **options)
            clock.lap("generation")
            plans = self.pipeline.plan(batch, strategy)
            why = explain(self.pipeline, batch, context) if explained else None
        waveforms = [self.model.speak(reply.text, plan) for reply, plan in zip(replies, plans)]
        clock.lap("synthesis")
        voice = self.pipeline.synthesis.voice
        return [
            Response(
                reply.text,
                plan,
                waveform,
                voice.sample_rate,
                transcripts_of(batch, index),
                dropped_turns(context, index),
                clock.laps,
                voice.honours,
                why,
                cut_off=reply.cut_off,
            )
            for index, (reply, plan, waveform) in enumerate(zip(replies, plans, waveforms))
        ]
