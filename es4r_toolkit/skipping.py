"""What training does with a batch whose numbers are not finite: name it, keep it, leave it out, and in the end stop."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.data.kept_batches import KeptBatch, RandomNumbers
from es4r_toolkit.errors import TrainingError
from es4r_toolkit.examining import Findings, broken_weights, examine, number
from es4r_toolkit.hparams import section
from es4r_toolkit.processes import place

logger = logging.getLogger(__name__)
NONFINITE = "nonfinite"


@dataclass
class SkippedBatches:
    """How many batches were left out; it goes along in checkpoints.

    Attributes
    ----------
    total : int
        In the whole training.
    epoch, in_epoch : int
        The running epoch, and how many were left out in it.
    folders : list of str
        Where this process keeps them.

    Example
    -------
    >>> skipped = SkippedBatches()
    >>> skipped.begin(epoch=1, step=0)
    >>> skipped.add("run/nonfinite/epoch1_step2")
    >>> skipped.begin(epoch=2, step=0)
    >>> skipped.total, skipped.in_epoch
    (1, 0)
    """

    total: int = 0
    epoch: int = 0
    in_epoch: int = 0
    folders: list[str] = field(default_factory=list)

    def begin(self, epoch: int, step: int) -> None:
        """Go into an epoch, or on with it after so many batches where a run was interrupted."""
        self.epoch, self.in_epoch = epoch, self.in_epoch if step else 0

    def add(self, folder: str | None) -> None:
        """One more, and where it is kept if by this process."""
        self.total, self.in_epoch = self.total + 1, self.in_epoch + 1
        if folder is not None:
            self.folders.append(folder)

    def save(self, path: Path) -> None:
        """Write the counts, which all processes have alike."""
        rank, _ = place()
        if rank == 0:
            Path(path).write_text(json.dumps(asdict(self)), encoding="utf-8")

    def load(self, path: Path, end_of_epoch: bool = False) -> None:
        """Take them up again."""
        for name, value in json.loads(Path(path).read_text(encoding="utf-8")).items():
            setattr(self, name, value)


class FiniteSteps:
    """The part of ES4RBrain that takes no step from numbers that are not finite; stands before Brain among its bases.

    Brain itself counts losses that are not finite, and steps all the same: clipping gradients by a norm that is not
    finite spreads it to every weight. Its budget is taken as it is, ``nonfinite_patience``, but for a training and
    not for an epoch.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.skipped = SkippedBatches()
        if self.checkpointer is not None:
            hooks = {"custom_save_hook": SkippedBatches.save, "custom_load_hook": SkippedBatches.load}
            self.checkpointer.add_recoverable("skipped_batches", self.skipped, optional_load=True, **hooks)

    def optimizers_step(self) -> None:
        """Step, and stop where that made a weight overflow: nothing that follows would be finite.

        Raises
        ------
        TrainingError
            If it did.
        """
        super().optimizers_step()
        broken = broken_weights(dict(self._named_weights()))
        if broken:
            step = f"the step after batch {self.step} of epoch {self.skipped.epoch}"
            problem = f"{step} left {len(broken)} trained weights not finite, {broken[0]} first"
            kept = self._keep({"finite": False, "cause": problem})
            raise TrainingError(kept, problem, "take a lower lr; the last checkpoint is of before")

    def examine(self, batch: DialogueBatch, random_numbers: RandomNumbers) -> Findings:
        """Compute a batch of training again, from given random numbers, and find what is not finite in it.

        It leaves the gradients of this batch behind, and the running statistics that it has passed through.
        """

        def terms() -> dict[str, Tensor]:
            with self.training_ctx:
                found = self.loss_terms(self.paths(batch), batch)
                return {**found, "loss": self.weighted(found)}

        random_numbers.restore(self.device)
        # The other processes examine batches of their own.
        with self.no_sync():
            return examine(self._parts(), terms)

    def begin_training(self, epoch: int) -> None:
        """Go into an epoch of training, or on with it."""
        self.skipped.begin(epoch, self.step)
        self.spoiled, self.left_out = False, self.skipped.in_epoch
        # What a forward pass changes beside the gradients, as the statistics of a normalisation.
        trained = (
            part
            for part in self.modules.modules()
            if any(weight.requires_grad for weight in part.parameters(recurse=False))
        )
        self.statistics = [values for part in trained for values in part.buffers(recurse=False)]

    def is_finite(self, loss: Tensor) -> bool:
        """Whether the loss and the gradients so far are, in every process."""
        gradients = [weight.grad for weight in self.modules.parameters() if weight.grad is not None]
        # Clipping by a norm whose squares overflow would leave nothing of them; what is scaled is clipped later.
        norm = get_total_norm(gradients, norm_type=math.inf if self.scaler.is_enabled() else 2.0)
        return not self._highest_of_all(int(not bool(loss.detach().isfinite() & norm.isfinite())))

    def leave_out(self, statistics: Sequence[Tensor]) -> bool:
        """Drop the running step, say why, and keep the batch; gives whether its loss still counts.

        Arguments
        ---------
        statistics : sequence of Tensor
            What ``self.statistics`` were before the batch.

        Raises
        ------
        TrainingError
            If that is one too many, or no other batch could be finite.
        """
        seen = {name: number(value) for name, value in self.terms.items()}
        weight = next((name for name, one in self._named_weights() if _is_broken(one.grad)), None)
        found = self._examine_again(statistics)
        self.spoiled = True
        worst = self._highest_of_all(found.severity)
        if self.scaler.is_enabled() and not worst and all(map(math.isfinite, self.terms.values())):
            # Nothing was too large but what float16 is scaled by.
            self.scaler.update(self.scaler.get_scale() * self.scaler.get_backoff_factor())
            return True
        self.left_out += 1
        kept, cause = None, "the batch of another process is not finite"
        # What is wrong in one process spreads to the gradients of others, where they normalise their turns together.
        if found.severity == worst:
            cause = found.cause
            if found.is_finite:
                # Such as a fault of the machine.
                gradient = f" and the gradient of {weight}" if weight else ""
                cause = f"the terms {seen}{gradient} were not finite, and are when computed again"
            kept = self._keep({**found.as_dict(), "cause": cause, "seen": {"terms": seen, "weight": weight}})
        self.skipped.add(None if kept is None else str(kept))
        names = ", ".join(dialogue.id for dialogue in self.heard[0].dialogues)
        logger.warning(
            "epoch %d, batch %d (%s) is left out, %d of %d that may be: %s (%s)%s",
            *(self.skipped.epoch, self.step, names, self.skipped.total, self.nonfinite_patience, cause, seen),
            "" if kept is None else f"; es4r replay {kept}",
        )
        self._stop_where_futile(found, cause)
        return False

    def _stop_where_futile(self, found: Findings, cause: str) -> None:
        places = ", ".join(self.skipped.folders) or self.hparams.output_folder
        if found.broken_weights:
            raise TrainingError(places, cause, "take a lower lr, and go on from a checkpoint of before")
        if self.skipped.total > self.nonfinite_patience:
            number_of = f"{self.skipped.total} batches were not finite, and {self.nonfinite_patience} may be"
            mend = "es4r replay them; take a lower lr, leave their dialogues out, or raise --nonfinite_patience"
            raise TrainingError(places, f"{number_of}; the last: {cause}", mend)

    def _examine_again(self, statistics: Sequence[Tensor]) -> Findings:
        """Examine the last batch, and leave everything as it was before that batch."""
        random_numbers = RandomNumbers.now(self.device)
        self._restore(statistics)
        found = self.examine(*self.heard)
        self._restore(statistics)
        random_numbers.restore(self.device)
        self.zero_grad(set_to_none=True)
        return found

    def _restore(self, statistics: Sequence[Tensor]) -> None:
        for values, earlier in zip(self.statistics, statistics):
            values.copy_(earlier)

    def _keep(self, found: Mapping[str, Any]) -> Path:
        """Keep the last batch and all that it was computed with."""
        batch, random_numbers = self.heard
        output, head = Path(self.hparams.output_folder), self.emotion_head
        settings = {
            "losses": self.hparams.losses,
            "precision": self.precision,
            "device": str(self.device),
            "lr": self.optimizer.param_groups[0]["lr"],
            "emotions": None if head is None else list(head.labels),
        }
        rank, _ = place()
        where = self.skipped.epoch, self.step, rank
        kept = KeptBatch(batch.to("cpu"), random_numbers, *where, settings, dict(found))
        written = output / "hyperparams.yaml"
        model = section(written.read_text(encoding="utf-8"), "model") if written.is_file() else None
        weights = self.pipeline.trained_state()
        return kept.write(output / NONFINITE, model, weights, None if head is None else head.state_dict())

    def _parts(self) -> dict[str, nn.Module]:
        head = self.emotion_head
        return {"": self.pipeline} | ({} if head is None else {"emotion_head": head})

    def _named_weights(self) -> list[tuple[str, nn.Parameter]]:
        """What is trained, by name."""
        named = (one for name, part in self._parts().items() for one in part.named_parameters(name))
        return [(name, weight) for name, weight in named if weight.requires_grad]

    def _highest_of_all(self, value: int) -> int:
        """The highest that any process has; all of them must ask."""
        _, processes = place()
        if processes == 1:
            return value
        values = torch.tensor(value, device=self.device)
        torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX)
        return int(values)


def _is_broken(gradient: Tensor | None) -> bool:
    return gradient is not None and not bool(gradient.isfinite().all())
