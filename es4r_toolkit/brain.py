"""ES4RBrain: two-path training in SpeechBrain's loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process
from torch import Tensor

from es4r_toolkit.checkpointing import begin_log_anew, log_epoch
from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.data.kept_batches import RandomNumbers
from es4r_toolkit.data.order import SharedBatches
from es4r_toolkit.errors import TrainingError
from es4r_toolkit.lobes.emotion_head import UNLABELLED, EmotionHead
from es4r_toolkit.lobes.pooling import AcrossTurnsNorm, StatisticsPooling
from es4r_toolkit.losses import emotion_cross_entropy, response_cross_entropy, response_kl
from es4r_toolkit.metrics.slots import SlotTable, slot_accuracies
from es4r_toolkit.metrics.text import text_scores
from es4r_toolkit.pipeline import EmpathyPipeline, PathLogits
from es4r_toolkit.processes import means_of_all
from es4r_toolkit.skipping import FiniteSteps
from es4r_toolkit.stages.understanding import SpeechStates

logger = logging.getLogger(__name__)


class ES4RBrain(FiniteSteps, sb.Brain):
    """Trains an EmpathyPipeline, and answers and scores the validation and test sets.

    Its modules are the ``pipeline`` and, where ``losses`` weigh ``emotion``,
    an ``emotion_head``. Reads from hparams: ``losses`` (weights of
    ``cross_entropy``, ``kl`` and ``emotion``, and ``temperature`` and
    ``direction`` of the divergence), ``epoch_counter``, ``scheduler``,
    ``train_logger`` and ``output_folder``; and, where it is there,
    ``augmentation``: waveforms (N, samples) -> waveforms of as many or more or
    fewer samples, for training alone.

    A step that a loss or gradient which is not finite has part in is not taken. Its batch is named, kept in
    ``nonfinite/`` of the output folder and left out, up to ``nonfinite_patience`` times in a training.
    """

    slots: SlotTable | None = None
    emotions_right = emotions_seen = 0
    # What was counted of an epoch before the run was interrupted in it.
    so_far: dict[str, Any] | None = None

    @property
    def pipeline(self) -> EmpathyPipeline:
        """The pipeline without any wrapping."""
        return getattr(self.modules.pipeline, "module", self.modules.pipeline)

    @property
    def emotion_head(self) -> EmotionHead | None:
        """The emotion head, where there is one, without any wrapping."""
        head = self.modules.emotion_head if "emotion_head" in self.modules else None
        return getattr(head, "module", head)

    def compute_forward(self, batch: DialogueBatch, stage: sb.Stage) -> PathLogits:
        """Run both paths, and answer where not in training."""
        batch = batch.to(self.device)
        if stage == sb.Stage.TRAIN and self.pipeline.generation.hears:
            batch = self._augmented(batch)
        if stage == sb.Stage.TRAIN:
            # What it would take to compute this again.
            self.heard = batch, RandomNumbers.now(self.device)
        paths = self.paths(batch)
        if stage != sb.Stage.TRAIN:
            self._answer(batch, plan=stage == sb.Stage.TEST)
        if stage == sb.Stage.TEST and paths.heard is not None:
            self._keep_turns(batch, paths.heard)
        return paths

    def compute_objectives(self, predictions: PathLogits, batch: DialogueBatch, stage: sb.Stage) -> Tensor:
        """The loss, and its terms for the log."""
        terms = self.loss_terms(predictions, batch)
        if stage == sb.Stage.TRAIN:
            terms = means_of_all(terms, self._counts(predictions, batch))
        self.terms = {name: float(term.detach()) for name, term in terms.items()}
        return self.weighted(terms)

    def paths(self, batch: DialogueBatch) -> PathLogits:
        """Both paths of a batch, or one where the other is not asked for."""
        return self.modules.pipeline(batch, text_path=self.hparams.losses["kl"] > 0)

    def loss_terms(self, predictions: PathLogits, batch: DialogueBatch) -> dict[str, Tensor]:
        """The reply's cross-entropy, its divergence from the text path and the turns' emotions, by name."""
        losses = self.hparams.losses
        terms = {"cross_entropy": response_cross_entropy(predictions.speech, predictions.targets, predictions.valid)}
        if predictions.text is not None:
            softness, direction = losses["temperature"], losses["direction"]
            terms["kl"] = response_kl(predictions.speech, predictions.text, predictions.valid, softness, direction)
        if "emotion_head" in self.modules:
            terms["emotion"] = self._emotion_loss(predictions.heard, batch)
        return terms

    def weighted(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The loss that is learned from."""
        return sum(self.hparams.losses[name] * term for name, term in terms.items())

    def fit_batch(self, batch: DialogueBatch) -> Tensor:
        """Learn from a batch as Brain does; a step in which one is not finite is not taken."""
        should_step = self.step % self.grad_accumulation_factor == 0
        self.on_fit_batch_start(batch, should_step)
        statistics = [values.clone() for values in self.statistics]
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, sb.Stage.TRAIN)
                loss = self.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            # Even from a loss that is not finite: other processes wait for what it gives.
            self.scaler.scale(loss / self.grad_accumulation_factor).backward()
        counted = loss.detach().cpu()
        if self.is_finite(loss) or self.leave_out(statistics):
            self._count()
        else:
            counted = torch.full_like(counted, math.nan)
        if should_step:
            if not self.spoiled:
                self.optimizers_step()
            self.zero_grad(set_to_none=True)
            self.spoiled = False
        self.on_fit_batch_end(batch, outputs, loss, should_step)
        return counted

    @torch.no_grad()
    def evaluate_batch(self, batch: DialogueBatch, stage: sb.Stage) -> Tensor:
        """Score a batch; a loss that is not finite has no part in the mean, and is named."""
        loss = super().evaluate_batch(batch, stage)
        if bool(loss.isfinite()):
            self._count()
        else:
            self.left_out += 1
            names = ", ".join(dialogue.id for dialogue in batch.dialogues)
            logger.warning("%s: a loss that is not finite is left out: %s; of %s", stage.name, self.terms, names)
        return loss

    def update_average(self, loss: Tensor, avg_loss: float) -> float:
        """The mean over the batches that count; Brain's own divides by those that were left out too."""
        if bool(torch.isfinite(loss)):
            counted = max(1, self.step - self.left_out)
            avg_loss -= avg_loss / counted
            avg_loss += float(loss) / counted
        return avg_loss

    def on_fit_batch_start(self, batch: DialogueBatch, should_step: bool) -> None:
        """Set the learning rate of this step, and leave a batch that only keeps step with other processes out."""
        order = self.train_sampler
        self.is_repeat = isinstance(order, SharedBatches) and order.is_repeat(self.step)
        for part in self.modules.modules():
            if isinstance(part, AcrossTurnsNorm):
                part.takes_part = not self.is_repeat
        if should_step:
            self.hparams.scheduler(self.optimizer, self.optimizer_step + 1)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Begin counting."""
        self.sums: dict[str, float] = {}
        self.batches, self.started = 0, time.perf_counter()
        self.predictions: list[dict[str, Any]] = []
        self.representations: list[tuple[str, dict[str, list]]] = []
        self.emotions_right = self.emotions_seen = 0
        self.left_out = 0
        if stage == sb.Stage.TRAIN:
            self.begin_training(epoch)
            if self.so_far is not None:
                self.sums, self.batches = self.so_far["sums"], self.so_far["batches"]
                self.started, self.so_far = self.started - self.so_far["seconds"], None

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Score, log, and keep the checkpoint of the lowest validation loss beside the newest."""
        terms = {name: total / max(self.batches, 1) for name, total in self.sums.items()}
        seconds = time.perf_counter() - self.started
        if self.left_out and not self.batches:
            problem = "no batch was finite, so that there is nothing to score"
            raise TrainingError(f"{stage.name} of epoch {epoch}", problem, "the log says what was not; take a lower lr")
        if stage == sb.Stage.TRAIN:
            skipped = {"skipped_batches": self.skipped.in_epoch}
            self.train_stats = {"loss": float(stage_loss), **terms, **skipped, "seconds": seconds}
            return
        stats = {"loss": float(stage_loss), **terms, **self.scores()}
        if self.left_out:
            stats["nonfinite_losses"] = self.left_out
        if stage == sb.Stage.TEST:
            stats["train_skipped_batches"] = self.skipped.total
            self.test_stats = stats
            begin_log_anew(self.hparams.train_logger, epoch_loaded=self.hparams.epoch_counter.current)
            self.hparams.train_logger.log_stats({"epoch_loaded": self.hparams.epoch_counter.current}, test_stats=stats)
            return
        rate = self.optimizer.param_groups[0]["lr"]
        begin_log_anew(self.hparams.train_logger, epoch=epoch, epoch_loaded=epoch)
        self.hparams.train_logger.log_stats(
            {"epoch": epoch, "lr": rate}, train_stats=self.train_stats, valid_stats=stats
        )
        if if_main_process():
            log_epoch(Path(self.hparams.output_folder) / "history.jsonl", epoch, self.train_stats, stats)
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

    def _count(self) -> None:
        """Take the last batch into the means of its stage."""
        for name, value in self.terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.batches += 1

    def _counts(self, predictions: PathLogits, batch: DialogueBatch) -> dict[str, Tensor | int]:
        """How many tokens or turns each term is the mean of; none in a batch that only keeps step with others."""
        if self.is_repeat:
            return {"cross_entropy": 0, "kl": 0, "emotion": 0}
        tokens = predictions.valid.sum()
        counts = {"cross_entropy": tokens, "kl": tokens}
        if self.emotion_head is not None:
            counts["emotion"] = (self._emotions(predictions.heard, batch) != UNLABELLED).sum()
        return counts

    def _should_save_intra_epoch_ckpt(self, *since: Any) -> bool:
        # Gradients that are being gathered are in no checkpoint.
        return self.step % self.grad_accumulation_factor == 0 and super()._should_save_intra_epoch_ckpt(*since)

    def _augmented(self, batch: DialogueBatch) -> DialogueBatch:
        """The batch through ``augmentation``; relative lengths stay what they are, and stored features too."""
        augment = getattr(self.hparams, "augmentation", None)
        return (
            batch if augment is None or batch.waveforms is None else replace(batch, waveforms=augment(batch.waveforms))
        )

    def _emotion_loss(self, heard: SpeechStates, batch: DialogueBatch) -> Tensor:
        """Over the speaker's turns that have a label; the listener's say nothing of the speaker."""
        targets = self._emotions(heard, batch)
        logits = self.modules.emotion_head(heard.attended, heard.attended_lens)
        self.emotions_right += int((logits.argmax(dim=1) == targets).sum())
        self.emotions_seen += int((targets != UNLABELLED).sum())
        return emotion_cross_entropy(logits, targets)

    def _emotions(self, heard: SpeechStates, batch: DialogueBatch) -> Tensor:
        """Of the turns that were heard, as the emotion head numbers them."""
        turns = (turn for dialogue in batch.dialogues for turn in dialogue.history)
        return self.emotion_head.targets([turn.emotion if turn.is_speaker else None for turn in turns])[heard.kept]

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
