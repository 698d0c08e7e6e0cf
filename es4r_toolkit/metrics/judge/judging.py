"""Judging a file of predictions: what is asked, what is known already, and the files that it makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from es4r_toolkit.data.manifest import AS_THEY_STAND
from es4r_toolkit.data.responses import make_folder, write_json, write_text
from es4r_toolkit.data.tables import TableOptions
from es4r_toolkit.metrics.judge.asking import Judge, Question, Settings, ask_all, questions, unanswered
from es4r_toolkit.metrics.judge.cases import Cases, read_cases
from es4r_toolkit.metrics.judge.judgements import JUDGEMENTS, Judgement, Judgements
from es4r_toolkit.metrics.judge.outcomes import JUDGED, figures, outcomes, spent
from es4r_toolkit.metrics.judge.prompts import PAIRS, PROMPTS, SCORES, JudgePrompt, read_prompt

RESULT, VERDICTS = "judge.json", "verdicts.jsonl"


@dataclass(frozen=True)
class Judging:
    """One system, or two against one another, before a judge.

    Attributes
    ----------
    settings : Settings
        Who judges.
    prompt : JudgePrompt
        What is asked.
    cases : Cases
        What is judged.
    asked : list of tuple of Question
        The questions of each case.
    judgements : Judgements
        What is known.
    told : dict
        What judge.json says of where all this came from.
    """

    settings: Settings
    prompt: JudgePrompt
    cases: Cases
    asked: list[tuple[Question, ...]]
    judgements: Judgements
    told: dict[str, object]

    @classmethod
    def plan(
        cls,
        predictions: Path,
        output: Path,
        settings: Settings,
        against: Path | None = None,
        dialogues: Path | None = None,
        prompts: Path = PROMPTS,
        table: TableOptions = AS_THEY_STAND,
    ) -> Judging:
        """Read everything and ask nothing.

        Arguments
        ---------
        predictions, against, dialogues, table
            As for ``read_cases``; with ``against`` replies are compared, without they are scored.
        output : Path
            The folder of ``judgements.jsonl``.
        settings : Settings
            Who will judge.
        prompts : Path
            A YAML file of prompts.

        Raises
        ------
        ConfigError, DialogueError
            If a file as a whole cannot be read.
        """
        prompt = read_prompt(SCORES if against is None else PAIRS, prompts)
        cases = read_cases(predictions, against, dialogues, table)
        told = {
            "predictions": str(predictions),
            "against": None if against is None else str(against),
            "judged_by": "reference" if dialogues is None else "dialogue",
            "prompts": {"file": str(prompts), "sha256": hashlib.sha256(Path(prompts).read_bytes()).hexdigest()},
            "rejected": len(cases.faults),
        }
        judgements = Judgements(output / JUDGEMENTS)
        return cls(settings, prompt, cases, questions(cases.good, prompt, settings), judgements, told)

    @property
    def missing(self) -> list[Question]:
        """The questions that are still to be asked."""
        return unanswered(self.asked, self.judgements)

    def ask(
        self,
        judge: Judge,
        concurrency: int = 1,
        progress: Callable[[Sequence[Future[Judgement]]], Iterable[Future[Judgement]]] = iter,
    ) -> bool:
        """Ask what is missing; False where it gave up, as ``ask_all`` does."""
        return ask_all(judge, self.missing, self.judgements, concurrency, progress)

    def conclude(self, price_in: float | None = None, price_out: float | None = None) -> dict[str, object]:
        """Write ``judge.json`` and ``verdicts.jsonl`` beside the judgements, and give what the former holds.

        Arguments
        ---------
        price_in, price_out : float or None
            Of a million tokens.

        Returns
        -------
        dict
            Where it came from, the counts and figures of ``figures``, ``cost`` as ``spent`` gives it, and
            ``not_judged``: each case without a verdict, and why.
        """
        found = outcomes(self.asked, self.judgements, self.prompt)
        answers = [self.judgements[one.key] for several in self.asked for one in several]
        served = sorted({one.served for one in answers if one is not None and one.served is not None})
        result = {
            **self.told,
            "judge": {**self.settings.as_dict(), "served": served},
            **figures(found, self.prompt),
            "cost": spent(self.asked, self.judgements, price_in, price_out),
            "not_judged": [one.as_dict() for one in found if one.status != JUDGED],
        }
        folder = self.judgements.path.parent
        make_folder(folder)
        lines = (json.dumps(one.as_dict(), ensure_ascii=False) + "\n" for one in found)
        write_text(folder / VERDICTS, "".join(lines))
        write_json(folder / RESULT, result)
        return result
