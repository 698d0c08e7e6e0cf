"""Asking a judge many questions, a few at once, each only once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from es4r_toolkit.errors import require
from es4r_toolkit.metrics.judge.judgements import Judgement, Judgements
from es4r_toolkit.metrics.judge.prompts import PAIRS, Case, JudgePrompt, Messages

# So many failures one after another, and it is the judge that fails, not the questions.
MOST_FAILURES = 10


@dataclass(frozen=True)
class Settings:
    """Who is asked, and how; two judges with the same settings are taken for the same.

    Attributes
    ----------
    source : str
        The endpoint's address, or ``local``.
    model : str
        Its name, or a local folder.
    options : mapping
        Whatever else its answer depends on, such as the temperature; JSON ready.
    """

    source: str
    model: str
    options: Mapping[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        return {"source": self.source, "model": self.model, "options": dict(self.options)}


@dataclass(frozen=True)
class Reply:
    """What a judge answered.

    Attributes
    ----------
    text : str
        Its words.
    finish : str or None
        Why it stopped: ``stop``, ``length`` or what else the server says.
    tokens_in, tokens_out : int or None
        What the server says that it used; None where it says nothing.
    served : str or None
        The model that answered, by its own word.
    attempts : int
        How often it was asked until it answered.
    """

    text: str
    finish: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    served: str | None = None
    attempts: int = 1


class Unanswered(Exception):
    """A question to which no answer came, and why; others may fare better.

    The tokens are those of an answer that came and is none.
    """

    def __init__(self, problem: str, attempts: int = 1, tokens_in: int | None = None, tokens_out: int | None = None):
        self.problem, self.attempts, self.tokens_in, self.tokens_out = problem, attempts, tokens_in, tokens_out
        super().__init__(problem)


class Judge(Protocol):
    """A language model that can be asked.

    ``ask`` raises Unanswered where a question gets no answer, and an ES4RError where no question will get one.
    """

    settings: Settings

    def ask(self, messages: Messages) -> Reply:
        """Chat messages -> its answer; called from several threads where more than one is asked at once."""
        ...

    def stop(self) -> None:
        """Make no further attempts."""
        ...


@dataclass(frozen=True)
class Question:
    """One thing to ask.

    Attributes
    ----------
    case : Case
        What is judged.
    swapped : bool
        Whether the second reply is shown first.
    messages : list of dict
        What the judge is told.
    key : str
        Of these messages to this judge with these settings; equal keys are one question.
    """

    case: Case
    swapped: bool
    messages: Messages
    key: str

    @classmethod
    def of(cls, case: Case, prompt: JudgePrompt, settings: Settings, swapped: bool = False) -> Question:
        """The question about a case."""
        messages = prompt.messages(case, swapped)
        whole = json.dumps({**settings.as_dict(), "messages": messages}, sort_keys=True)
        return cls(case, swapped, messages, hashlib.sha256(whole.encode("ascii")).hexdigest())


def questions(cases: Iterable[Case], prompt: JudgePrompt, settings: Settings) -> list[tuple[Question, ...]]:
    """For each case its question, or its two where replies are compared: either reply is shown first once."""
    orders = (False, True) if prompt.kind == PAIRS else (False,)
    return [tuple(Question.of(case, prompt, settings, swapped) for swapped in orders) for case in cases]


def unanswered(asked: Iterable[Sequence[Question]], judgements: Judgements) -> list[Question]:
    """The questions that the file holds no answer to, each once."""
    found = {one.key: one for several in asked for one in several}
    return [one for one in found.values() if not judgements.answers(one.key)]


def ask_all(
    judge: Judge,
    asked: Sequence[Question],
    judgements: Judgements,
    concurrency: int = 1,
    progress: Callable[[Sequence[Future[Judgement]]], Iterable[Future[Judgement]]] = iter,
) -> bool:
    """Ask all questions, and keep each answer in the file as soon as it comes.

    When it is interrupted, the questions that are being answered are waited for, for they are paid for.

    Arguments
    ---------
    judge : Judge
    asked : sequence of Question
    judgements : Judgements
        The file.
    concurrency : int
        Questions that are asked at once.
    progress : callable
        Wraps the answers, to show how far it is.

    Returns
    -------
    bool
        False where it gave up after ``MOST_FAILURES`` failures in a row, without asking the rest.

    Raises
    ------
    ES4RError
        If the judge can answer no question.
    """
    require(concurrency > 0, "concurrency", concurrency, "must be positive")

    def put(question: Question) -> Judgement:
        judgement = _answer(judge, question)
        judgements.add(judgement)
        return judgement

    with ThreadPoolExecutor(concurrency) as pool:
        failures = 0
        try:
            for future in progress([pool.submit(put, question) for question in asked]):
                failures = 0 if future.result().answered else failures + 1
                if failures == MOST_FAILURES:
                    judge.stop()
                    break
        except BaseException:
            judge.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    return failures < MOST_FAILURES


def _answer(judge: Judge, question: Question) -> Judgement:
    settings, began = judge.settings, time.monotonic()
    about = {"key": question.key, "id": question.case.id, "swapped": question.swapped}
    about |= {"source": settings.source, "model": settings.model}
    try:
        found = vars(judge.ask(question.messages))
    except Unanswered as fault:
        found = vars(fault)
    return Judgement(**about, **found, seconds=round(time.monotonic() - began, 3))
