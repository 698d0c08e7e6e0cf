"""EmpathyPipeline: the three stages wired; one context() for training and generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.data.heard import HeardTurn
from es4r_toolkit.dialogue import Dialogue, Turn
from es4r_toolkit.errors import BackendError, ConfigError, ContextError, DialogueError, require
from es4r_toolkit.masks import frame_counts
from es4r_toolkit.protocols import Recognizer
from es4r_toolkit.stages.generation import Context, EmpatheticGeneration
from es4r_toolkit.stages.synthesis import EmpatheticSynthesis, SpeechPlan
from es4r_toolkit.stages.understanding import EmpatheticUnderstanding, SpeechStates


@dataclass(frozen=True)
class PathLogits:
    """What the losses compare.

    Attributes
    ----------
    speech : Tensor (B, R, V)
        Logits of the reply on the speech path.
    text : Tensor (B, R, V) or None
        On the text path, without gradient; None where it was not asked for.
    targets : Tensor (B, R) of int
    valid : Tensor (B, R) of bool
    heard : SpeechStates or None
        What the speech path heard; None where the context holds no speech.
    """

    speech: Tensor
    text: Tensor | None
    targets: Tensor
    valid: Tensor
    heard: SpeechStates | None = None


class EmpathyPipeline(nn.Module):
    """Spoken dialogue in, empathetic words and voice out.

    Arguments
    ---------
    understanding : EmpatheticUnderstanding
    generation : EmpatheticGeneration
    synthesis : EmpatheticSynthesis or None
        None for training text alone.
    recognizer : Recognizer or None
        Writes down turns that come without a transcript.

    Raises
    ------
    ConfigError
        If hearing, writing down and speaking do not work at the same sample rate.
    """

    def __init__(
        self,
        understanding: EmpatheticUnderstanding,
        generation: EmpatheticGeneration,
        synthesis: EmpatheticSynthesis | None = None,
        recognizer: Recognizer | None = None,
    ):
        super().__init__()
        self.understanding, self.generation, self.synthesis = understanding, generation, synthesis
        if synthesis is not None:
            heard, rule = self.sample_rate, "must be the strategy selector's sample_rate"
            require(heard == synthesis.sample_rate, "encoder.sample_rate", heard, f"{rule}, {synthesis.sample_rate}")
        self.recognizer = recognizer
        if recognizer is not None:
            rate = recognizer.sample_rate
            require(rate == self.sample_rate, "recognizer.sample_rate", rate, f"must be {self.sample_rate} too")
            if hasattr(recognizer, "share_encoder"):
                recognizer.share_encoder(understanding.encoder)
        if not generation.hears:
            # What no path runs through has no gradient, and would hang training in several processes.
            understanding.requires_grad_(False)
            generation.fusion = None

    @property
    def sample_rate(self) -> int:
        """Of the waveforms it takes (Hz)."""
        return self.understanding.encoder.sample_rate

    @torch.no_grad()
    def transcribed(self, batch: DialogueBatch) -> DialogueBatch:
        """The batch with the words of turns that came without them.

        Raises
        ------
        DialogueError
            If there are such turns, and no recognizer.
        """
        if all(dialogue.is_written for dialogue in batch.dialogues):
            return batch
        if self.recognizer is None:
            name = next(dialogue.id for dialogue in batch.dialogues if not dialogue.is_written)
            raise DialogueError(name, "has a turn without a transcript", "write it, or give the model a recognizer")
        if getattr(self.recognizer, "shares_features", False):
            mels, counts = self.understanding.features(batch.waveforms, batch.wav_lens)
            batch = replace(batch, features=(mels, counts))
            recordings, write = [row[:count] for row, count in zip(mels, counts.tolist())], "transcribe_features"
        else:
            samples = frame_counts(batch.wav_lens, batch.waveforms.shape[1]).tolist()
            recordings, write = [wave[:count] for wave, count in zip(batch.waveforms, samples)], "transcribe"
        heard, dialogues = iter(recordings), []
        for dialogue in batch.dialogues:
            turns = [
                turn
                if turn.is_written
                else replace(turn, text=getattr(self.recognizer, write)(recording), recognizer=self.recognizer.name)
                for turn, recording in zip(dialogue.history, heard)
            ]
            dialogues.append(replace(dialogue, history=tuple(turns)))
        return replace(batch, dialogues=dialogues)

    @torch.no_grad()
    def write_down(self, turn: Turn, waveform: Tensor, of: str) -> Turn:
        """The turn with its words, which its recording (samples,) is asked for where they are not known.

        Raises
        ------
        DialogueError
            If they are not, and there is no recognizer; it names what the turn is ``of``.
        """
        batch = DialogueBatch.of([Dialogue(of, (turn,))], [[waveform]]).to(self.device)
        return self.transcribed(batch).dialogues[0].history[0]

    @torch.no_grad()
    def hear(
        self,
        turn: Turn,
        waveform: Tensor,
        features: Tensor | None = None,
        styles: list[Tensor | None] | None = None,
    ) -> HeardTurn:
        """All of one turn that does not depend on its dialogue.

        Arguments
        ---------
        turn : Turn
            With its words.
        waveform : Tensor (samples,)
            Its recording at ``sample_rate``.
        features : Tensor (T, F), optional
            Its log-mels, where they are known.
        styles : list of one Tensor (S,) or None, optional
            Its style, where it is known.
        """
        waves = waveform[None].to(self.device)
        whole = torch.ones(1, device=self.device)
        if features is None:
            mels, counts = self.understanding.features(waves, whole)
        else:
            mels, counts = features[None].to(self.device), torch.tensor([len(features)], device=self.device)
        frames = None
        if self.generation.hears and self.understanding.hears_turns_alone:
            frames = self.understanding.within(mels, counts, torch.ones_like(counts))
        energies, styles = self.synthesis.measure(waves, whole, styles)
        return HeardTurn(turn, mels[0], frames, energies[0], styles[0], len(waveform) / self.sample_rate)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def context(self, batch: DialogueBatch, return_attention: bool = False) -> Context:
        """What the language model sees before the reply, in training, validation and generation.

        Raises
        ------
        ContextError
            If a dialogue is longer than what the language model can read.
        DialogueError
            If a newest turn is longer than the speech encoder's window, or its words are not known.
        """
        batch = self.transcribed(batch)
        speech = self._heard(batch) if self.generation.hears else None
        try:
            return self.generation.context(self._prompts(batch), speech, return_attention)
        except ContextError as fault:
            place = int(fault.item.split()[-1])
            raise ContextError(batch.dialogues[place].id, fault.problem, fault.mend) from None

    def forward(self, batch: DialogueBatch, text_path: bool = True) -> PathLogits:
        """Both paths over the reference replies.

        Arguments
        ---------
        batch : DialogueBatch
            Every dialogue with its response.
        text_path : bool
            Whether to run the text path for the KL term too.

        Raises
        ------
        DialogueError
            If a dialogue has no response to learn from.
        ContextError
            If its response is longer than the language model's positions leave room for.
        """
        batch = self.transcribed(batch)
        targets, valid = self._targets(batch)
        text = None
        if text_path:
            # First, so that what it needs is free again before the speech path keeps its activations.
            with torch.no_grad():
                bare = self.generation.text_context(self._prompts(batch))
                self._check_room(batch, bare, valid)
                text = self.generation.reply_logits(bare, targets, valid)
        context = self.context(batch)
        self._check_room(batch, context, valid)
        speech = self.generation.reply_logits(context, targets, valid)
        return PathLogits(speech, text, targets, valid, context.heard)

    @torch.no_grad()
    def generate(self, batch: DialogueBatch, **options: Any) -> list[str]:
        """Write a reply to each dialogue."""
        return self.generation.generate(self.context(batch), **options)

    def plan(self, batch: DialogueBatch, strategy: str | None = None) -> list[SpeechPlan]:
        """Decide how each reply is to be spoken; a strategy that is named is taken whatever the energies say."""
        measured = batch.energies, batch.styles
        if batch.energies is None:
            measured = self.synthesis.measure(batch.waveforms, batch.wav_lens)
        return self.synthesis.decide(*measured, batch.turns_per_dialogue, batch.is_speaker, strategy)

    def trained_state(self) -> dict[str, Tensor]:
        """What training changes, by name: weights, and the running statistics that lie beside them."""
        trained = {name: weight.detach() for name, weight in self.named_parameters() if weight.requires_grad}
        for path, module in self.named_modules():
            weights = module.parameters(recurse=False)
            if any(weight.requires_grad for weight in weights):
                kept = module.state_dict()
                statistics = {name: kept[name] for name, _ in module.named_buffers(recurse=False) if name in kept}
                trained |= {f"{path}.{name}": values for name, values in statistics.items()}
        return trained

    def save_trained(self, path: str | Path) -> None:
        """Write what training changed as safetensors."""
        save_file({name: weight.contiguous().cpu() for name, weight in self.trained_state().items()}, path)

    def load_trained(self, path: str | Path) -> None:
        """Read trained weights.

        Raises
        ------
        BackendError
            If the file is missing or its names or shapes are not this pipeline's.
        """
        saved, own = _read_weights(path), self.trained_state()
        odd = sorted(saved.keys() ^ own.keys())
        if odd:
            raise BackendError(
                path,
                f"{len(odd)} weights differ by name, {odd[0]} the first",
                "its YAML must be the one it was trained with",
            )
        _copy(saved, own, path)

    def start_from(self, path: str | Path) -> None:
        """Take the weights that a safetensors file holds, of any part of the pipeline, and leave the others.

        Raises
        ------
        BackendError
            If the file is missing or holds a weight that this pipeline has not, or of another shape.
        """
        saved, own = _read_weights(path), {**dict(self.named_parameters()), **self.trained_state()}
        strange = sorted(saved.keys() - own.keys())
        if strange:
            raise BackendError(path, f"holds {strange[0]}, which this model has not", "name weights of the same model")
        _copy(saved, own, path)

    def _heard(self, batch: DialogueBatch) -> SpeechStates:
        try:
            if batch.features is not None:
                return self.understanding.listen(*batch.features, batch.turns_per_dialogue, batch.frames)
            return self.understanding(batch.waveforms, batch.wav_lens, batch.turns_per_dialogue)
        except ConfigError as fault:
            if fault.item != "newest turn":
                raise
            lengths = batch.wav_lens if batch.features is None else batch.features[1]
            longest = int(lengths[batch.turns_per_dialogue.cumsum(0) - 1].argmax())
            named = f"{batch.dialogues[longest].id}, newest turn"
            raise DialogueError(named, fault.problem, f"{fault.mend}, or leave the dialogue out") from None

    def _prompts(self, batch: DialogueBatch) -> list:
        return [self.generation.render(dialogue.history) for dialogue in batch.dialogues]

    def _targets(self, batch: DialogueBatch) -> tuple[Tensor, Tensor]:
        for dialogue in batch.dialogues:
            if dialogue.response is None or not dialogue.response.text.strip():
                raise DialogueError(
                    dialogue.id, "has no response to learn from", "add one, or leave it out of training"
                )
        replies = [self.generation.render.reply(dialogue.response.text) for dialogue in batch.dialogues]
        longest, device = max(map(len, replies)), batch.turns_per_dialogue.device
        ids = torch.tensor([[*reply, *[0] * (longest - len(reply))] for reply in replies], device=device)
        valid = torch.tensor(
            [[True] * len(reply) + [False] * (longest - len(reply)) for reply in replies], device=device
        )
        return ids, valid

    def _check_room(self, batch: DialogueBatch, context: Context, replies: Tensor) -> None:
        """Let no reply reach beyond the positions that the language model knows."""
        room = self.generation.llm.max_positions
        if room is None or context.valid.shape[1] + replies.shape[1] <= room:
            return
        for dialogue, before, reply in zip(batch.dialogues, context.valid.sum(1).tolist(), replies.sum(1).tolist()):
            if before + reply > room:
                need = f"a context of {before} positions and a response of {reply} tokens"
                problem = f"{need} do not fit the language model's {room}"
                raise ContextError(dialogue.id, problem, "shorten the response, or leave it out of training")


def _read_weights(path: str | Path) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise BackendError(path, "no such file", "train the model first, or name its folder")
    try:
        return load_file(path)
    except SafetensorError as fault:
        raise BackendError(path, f"cannot be read ({fault})", "it was cut short: copy or train it again") from fault


def _copy(saved: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str | Path) -> None:
    for name, weight in saved.items():
        if weight.shape != own[name].shape:
            raise BackendError(
                path,
                f"{name} is {tuple(weight.shape)} there and {tuple(own[name].shape)} here",
                "its YAML must be the one it was trained with",
            )
        own[name].copy_(weight)
