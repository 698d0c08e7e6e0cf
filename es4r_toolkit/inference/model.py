"""SharedModel: one pipeline that several threads hear, write and speak with."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from es4r_toolkit.cancelling import cancellable, holding
from es4r_toolkit.data.audio import load_turn
from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.data.feature_store import FeatureStore, StyleStore
from es4r_toolkit.data.heard import HeardTurn
from es4r_toolkit.dialogue import Dialogue, Turn
from es4r_toolkit.errors import BackendError, DialogueError, require
from es4r_toolkit.inference.response import Clock
from es4r_toolkit.inference.turns import TurnMemory, key_of
from es4r_toolkit.pipeline import EmpathyPipeline
from es4r_toolkit.protocols import SpeechSynthesizer
from es4r_toolkit.stages.synthesis import EmpatheticSynthesis, SpeechPlan

History = Dialogue | Sequence[HeardTurn]


class SharedModel:
    """A pipeline in use: one thread at a time computes, one writes down, one speaks; what was heard is remembered.

    Arguments
    ---------
    pipeline : EmpathyPipeline
        With its trained weights loaded; it is put into eval mode.
    precision : str
        ``fp32``, or ``bf16`` to compute under bfloat16 autocast.
    feature_store : str or Path, optional
        Folder where log-mels and style vectors of recordings are kept beyond the process.
    """

    def __init__(self, pipeline: EmpathyPipeline, precision: str = "fp32", feature_store: str | Path | None = None):
        require(precision in ("fp32", "bf16"), "precision", precision, "must be fp32 or bf16")
        self.pipeline, self.precision, self.feature_store = pipeline.eval(), precision, feature_store
        self.memory = TurnMemory()
        self._features = self._styles = None
        if feature_store is not None:
            encoder, voice = pipeline.understanding.encoder, pipeline.synthesis.voice
            self._features = FeatureStore(feature_store, encoder)
            if voice.style_dim is not None:
                self._styles = StyleStore(feature_store, voice, pipeline.sample_rate)
        self._computing, self._recognizing, self._speaking = (threading.RLock() for _ in range(3))
        cancellable(pipeline)

    def with_voice(self, voice: SpeechSynthesizer) -> SharedModel:
        """The same model, its weights held once, with another voice."""
        own = self.pipeline
        synthesis = EmpatheticSynthesis(voice, own.synthesis.strategy, own.synthesis.style)
        pipeline = EmpathyPipeline(own.understanding, own.generation, synthesis, own.recognizer).to(own.device)
        other = SharedModel(pipeline, self.precision, self.feature_store)
        other._computing, other._recognizing = self._computing, self._recognizing
        return other

    @property
    def sample_rate(self) -> int:
        """Of the waveforms that it hears (Hz)."""
        return self.pipeline.sample_rate

    @contextmanager
    def computing(self) -> Iterator[None]:
        """A block in which this thread alone computes, without gradients and in the model's precision."""
        with holding(self._computing), torch.no_grad():
            if self.precision == "bf16":
                with torch.autocast(self.pipeline.device.type, torch.bfloat16):
                    yield
            else:
                yield

    def hear(self, turns: Sequence[Turn], waveforms: Sequence[Tensor | None], clock: Clock, of: str) -> list[HeardTurn]:
        """All of some turns that does not depend on their dialogue; what was heard before is only looked up.

        Arguments
        ---------
        turns : sequence of Turn
            With their recordings, where there is no waveform.
        waveforms : sequence of Tensor (samples,) or None
            At ``sample_rate``.
        clock : Clock
            Given a lap of decoding and one of recognition.
        of : str
            What an error names.

        Raises
        ------
        AudioError
            If a recording cannot be used.
        DialogueError
            If the words of a turn are not known, and there is no recognizer.
        """
        keys = [key_of(turn, waveform) for turn, waveform in zip(turns, waveforms)]
        heard = [self.memory.get(key, turn) for key, turn in zip(keys, turns)]
        waves = {
            place: load_turn(turns[place], self.sample_rate) if waveforms[place] is None else waveforms[place]
            for place, known in enumerate(heard)
            if known is None
        }
        clock.lap("decoding")
        written = {place: self._written(turns[place], wave, of) for place, wave in waves.items()}
        clock.lap("recognition")
        with self.computing():
            for place, wave in waves.items():
                heard[place] = self.pipeline.hear(written[place], wave, *self._kept(written[place], wave))
                self.memory.keep(keys[place], heard[place])
        return heard

    def _written(self, turn: Turn, waveform: Tensor, of: str) -> Turn:
        if turn.is_written:
            # Who brings the words waits for nobody's recognition.
            return turn
        with holding(self._recognizing):
            return self.pipeline.write_down(turn, waveform, of)

    def _kept(self, turn: Turn, waveform: Tensor) -> tuple[Tensor | None, list[Tensor | None] | None]:
        """Log-mels and style of a recording from the store, which has them from now on; None for what it keeps not."""
        # The store goes by files: what a microphone gives has none.
        if turn.audio is None:
            return None, None
        device = self.pipeline.device
        features = None if self._features is None else self._features.features(turn, device, waveform)
        styles = None if self._styles is None else [self._styles.style(turn, device, waveform)]
        return features, styles

    def listen(self, histories: Sequence[History], clock: Clock) -> DialogueBatch:
        """Dialogues as one batch of heard turns.

        Raises
        ------
        AudioError
            If a recording cannot be used.
        DialogueError
            If a dialogue has no turn, or one whose words are not known.
        """
        names, heard = [], []
        for history in histories:
            name = history.id if isinstance(history, Dialogue) else "the conversation"
            if not len(history):
                raise DialogueError(name, "has no turn", "let the speaker begin")
            if isinstance(history, Dialogue):
                history = self.hear(history.history, [None] * len(history), clock, name)
            names.append(name)
            heard.append(history)
        return DialogueBatch.of_heard(names, heard)

    def speak(self, text: str, plan: SpeechPlan | None = None) -> Tensor:
        """Words as a plan says, or plainly -> waveform (samples,) at the voice's rate.

        Raises
        ------
        BackendError
            If there is no word, or the voice cannot speak.
        """
        if not any(map(str.isalnum, text)):
            raise BackendError("the reply", "holds no word", "train the model longer, or sample at another temperature")
        synthesis = self.pipeline.synthesis
        with holding(self._speaking):
            return synthesis.voice.synthesize(text) if plan is None else synthesis.speak(text, plan)
