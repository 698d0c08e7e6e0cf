"""ES4RBrain: two-path training in SpeechBrain's loop."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process
from torch import Tensor

from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.data.records import read_lines
from es4r_toolkit.lobes.emotion_head import UNLABELLED
from es4r_toolkit.lobes.pooling import StatisticsPooling
from es4r_toolkit.losses import emotion_cross_entropy, response_cross_entropy, response_kl
from es4r_toolkit.metrics.slots import SlotTable, slot_accuracies
from es4r_toolkit.metrics.text import text_scores
from es4r_toolkit.pipeline import EmpathyPipeline, PathLogits
from es4r_toolkit.stages.understanding import SpeechStates


class ES4RBrain(sb.Brain):
    """Trains an EmpathyPipeline, and answers and scores the validation and test sets.

    Its modules are the ``pipeline`` and, where ``losses`` weigh ``emotion``,
    an ``emotion_head``. Reads from hparams: ``losses`` (weights of
    ``cross_entropy``, ``kl`` and ``emotion``, and ``temperature`` and
    ``direction`` of the divergence), ``epoch_counter``, ``scheduler``,
    ``train_logger`` and ``output_folder``; and, where it is there,
    ``augmentation``: waveforms (N, samples) -> waveforms of as many or more or
    fewer samples, for training alone.
    """

    slots: SlotTable | None = None

    @property
    def pipeline(self) -> EmpathyPipeline:
        """The pipeline without any wrapping."""
        return getattr(self.modules.pipeline, "module", self.modules.pipeline)

    def compute_forward(self, batch: DialogueBatch, stage: sb.Stage) -> PathLogits:
        """Run both paths, and answer where not in training."""
        batch = batch.to(self.device)
        if stage == sb.Stage.TRAIN and self.pipeline.generation.hears:
            batch = self._augmented(batch)
        paths = self.modules.pipeline(batch, text_path=self.hparams.losses["kl"] > 0)
        if stage != sb.Stage.TRAIN:
            self._answer(batch, plan=stage == sb.Stage.TEST)
        if stage == sb.Stage.TEST and paths.heard is not None:
            self._keep_turns(batch, paths.heard)
        return paths

    def compute_objectives(self, predictions: PathLogits, batch: DialogueBatch, stage: sb.Stage) -> Tensor:
        """Weighted sum of the reply's cross-entropy, its divergence from the text path and the turns' emotions."""
        weights = self.hparams.losses
        terms = {"cross_entropy": response_cross_entropy(predictions.speech, predictions.targets, predictions.valid)}
        if predictions.text is not None:
            terms["kl"] = response_kl(
                predictions.speech,
                predictions.text,
                predictions.valid,
                weights["temperature"],
                weights["direction"],
            )
        if "emotion_head" in self.modules:
            terms["emotion"] = self._emotion_loss(predictions.heard, batch)
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(term.detach())
        self.batches += 1
        return sum(weights[name] * term for name, term in terms.items())

    def on_fit_batch_start(self, batch: DialogueBatch, should_step: bool) -> None:
        """Set the learning rate of this step."""
        if should_step:
            self.hparams.scheduler(self.optimizer, self.optimizer_step + 1)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Begin counting."""
        self.sums: dict[str, float] = {}
        self.batches, self.started = 0, time.perf_counter()
        self.predictions: list[dict[str, Any]] = []
        self.representations: list[tuple[str, dict[str, list]]] = []
        self.emotions_right = self.emotions_seen = 0

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Score, log, and keep the checkpoint of the lowest validation loss beside the newest."""
        terms = {name: total / max(self.batches, 1) for name, total in self.sums.items()}
        seconds = time.perf_counter() - self.started
        if stage == sb.Stage.TRAIN:
            self.train_stats = {"loss": float(stage_loss), **terms, "seconds": seconds}
            return
        stats = {"loss": float(stage_loss), **terms, **self.scores()}
        if stage == sb.Stage.TEST:
            self.test_stats = stats
            self.hparams.train_logger.log_stats({"epoch_loaded": self.hparams.epoch_counter.current}, test_stats=stats)
            return
        rate = self.optimizer.param_groups[0]["lr"]
        self.hparams.train_logger.log_stats(
            {"epoch": epoch, "lr": rate}, train_stats=self.train_stats, valid_stats=stats
        )
        self._log_epoch(epoch, stats)
        self.checkpointer.save_and_keep_only(meta={"loss": stats["loss"], "epoch": epoch}, min_keys=["loss"])

    def scores(self) -> dict[str, float]:
        """Text and slot scores of the predictions so far."""
        replies = [line["response"] for line in self.predictions]
        scores = text_scores(replies, [line["reference"] for line in self.predictions])
        if self.slots is not None:
            scores |= slot_accuracies(replies, [line["slots"] for line in self.predictions], self.slots)
        if self.emotions_seen:
            scores["emotion_accuracy"] = self.emotions_right / self.emotions_seen
        return scores

    def _augmented(self, batch: DialogueBatch) -> DialogueBatch:
        """The batch through ``augmentation``; relative lengths stay what they are, and stored features too."""
        augment = getattr(self.hparams, "augmentation", None)
        return (
            batch if augment is None or batch.waveforms is None else replace(batch, waveforms=augment(batch.waveforms))
        )

    def _emotion_loss(self, heard: SpeechStates, batch: DialogueBatch) -> Tensor:
        """Over the speaker's turns that have a label; the listener's say nothing of the speaker."""
        head = self.modules.emotion_head
        turns = (turn for dialogue in batch.dialogues for turn in dialogue.history)
        emotions = [turn.emotion if turn.is_speaker else None for turn in turns]
        targets = getattr(head, "module", head).targets(emotions)[heard.kept]
        logits = head(heard.attended, heard.attended_lens)
        self.emotions_right += int((logits.argmax(dim=1) == targets).sum())
        self.emotions_seen += int((targets != UNLABELLED).sum())
        return emotion_cross_entropy(logits, targets)

    def _answer(self, batch: DialogueBatch, plan: bool) -> None:
        # Greedy, whatever the checkpoint prefers: scores are to be the same again.
        replies = self.pipeline.generate(batch, temperature=0.0)
        plans = self.pipeline.plan(batch) if plan and self.pipeline.synthesis is not None else [None] * len(batch)
        for dialogue, reply, speech in zip(batch.dialogues, replies, plans):
            line = {
                "id": dialogue.id,
                "response": reply,
                "reference": dialogue.response.text,
                "slots": dialogue.slots,
            }
            if speech is not None:
                line |= {
                    "strategy": speech.strategy.name,
                    "energies": list(speech.energies),
                    "energy_change": speech.strategy.relative_change,
                }
            self.predictions.append(line)

    def _keep_turns(self, batch: DialogueBatch, heard: SpeechStates) -> None:
        """The mean over the frames of each turn that was heard, before and after the dual attention."""
        turns = (batch.turns_per_dialogue - heard.dropped).tolist()
        kinds = {
            kind: StatisticsPooling()(frames, heard.attended_lens)[:, : frames.shape[2]].float().cpu().split(turns)
            for kind, frames in (("before", heard.frames), ("after", heard.attended))
        }
        for index, dialogue in enumerate(batch.dialogues):
            vectors = {kind: by_dialogue[index].tolist() for kind, by_dialogue in kinds.items()}
            self.representations.append((dialogue.id, vectors))

    def _log_epoch(self, epoch: int, stats: dict[str, float]) -> None:
        # One line an epoch for plots; an epoch run again after a crash replaces its line.
        if not if_main_process():
            return
        path = Path(self.hparams.output_folder) / "history.jsonl"
        lines = read_lines(path) if path.is_file() else []
        train = {f"train_{name}": value for name, value in self.train_stats.items() if name != "seconds"}
        rest = {"valid_loss" if name == "loss" else name: value for name, value in stats.items()}
        lines = [line for line in lines if line["epoch"] < epoch]
        lines.append({"epoch": epoch, **train, **rest, "seconds": self.train_stats["seconds"]})
        beside = path.with_suffix(".part")
        beside.write_text("".join(json.dumps(line) + "\n" for line in lines))
        beside.replace(path)
