"""The one renderer of context and reply, for training and generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from jinja2 import TemplateError

from es4r_toolkit.dialogue import Turn
from es4r_toolkit.errors import BackendError, DialogueError

SYSTEM = "You hear how things are said. Answer the speaker with empathy."
_PLACE = "THE-DIALOGUE-STANDS-HERE"
_BLANK = " \t\r\n▁"


@dataclass(frozen=True)
class Prompt:
    """Token ids around and inside the dialogue.

    Attributes
    ----------
    prefix : tuple of int
        System message and the opening of the user message.
    turns : tuple of tuple of int
        The text history, one entry a turn.
    suffix : tuple of int
        The close of the user message and the opening of the reply.
    """

    prefix: tuple[int, ...]
    turns: tuple[tuple[int, ...], ...]
    suffix: tuple[int, ...]

    @property
    def history(self) -> list[int]:
        """The text history as one sequence."""
        return list(chain.from_iterable(self.turns))


class PromptRenderer:
    """Turns a dialogue into token ids by the tokenizer's own chat template.

    The whole history stands in one user message; what is said in it is
    tokenized as plain text: a control token in it is broken by a space, so that
    nothing a user says steers the prompt, and a turn is one line, so that
    nothing said in it passes for another turn. Thinking modes are off.

    Arguments
    ---------
    tokenizer
        A Hugging Face tokenizer with a chat template.
    system : str
        The system message.

    Raises
    ------
    BackendError
        If the template drops or repeats the user's message.
    """

    def __init__(self, tokenizer: Any, system: str = SYSTEM):
        self.tokenizer = tokenizer
        # Runs of spaces and line breaks, and single letters, which some tokenizers add, steer nothing.
        self._control = {
            token.content: index
            for index, token in tokenizer.added_tokens_decoder.items()
            if token.content.strip(_BLANK) and (token.special or len(token.content) > 1)
        }
        self._spelled = self._spell()
        messages = [{"role": "system", "content": system}, {"role": "user", "content": _PLACE}]
        try:
            rendered = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except (TemplateError, TypeError, ArithmeticError, MemoryError, RecursionError) as fault:
            raise BackendError("chat template", f"refuses a system message ({fault})", "use another model") from fault
        around = rendered.split(_PLACE)
        if len(around) != 2:
            raise BackendError(
                "chat template", f"shows the user's message {len(around) - 1} times", "it must show it once"
            )
        self._prefix, self._suffix = (tuple(self._ids(part)) for part in around)

    def __call__(self, turns: Sequence[Turn]) -> Prompt:
        """Render the history of a dialogue, oldest turn first."""
        history = tuple(tuple(self.plain(f"{turn.role}: {_one_line(turn.text)}\n")) for turn in turns)
        return Prompt(self._prefix, history, self._suffix)

    def reply(self, text: str) -> list[int]:
        """Token ids of a reply, closed by the end token."""
        return [*self.plain(text), self.tokenizer.eos_token_id]

    def text(self, ids: Sequence[int]) -> str:
        """The words of generated ids."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def plain(self, text: str) -> list[int]:
        """Token ids of what somebody said, no control token among them.

        Raises
        ------
        DialogueError
            If the text holds half a character, which no tokenizer reads.
        """
        for token in self._control:
            if token in text:
                text = text.replace(token, _broken(token))
        # A tokenizer may make a control token of other letters, such as full-width ones: only the ids tell.
        return [one for index in self._ids(text) for one in self._spelled.get(index, (index,))]

    def _ids(self, text: str) -> list[int]:
        try:
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        except (TypeError, UnicodeEncodeError):
            raise DialogueError("text", f"{text[:80]!r} holds half a character", "write the whole character") from None

    def _spell(self) -> dict[int, tuple[int, ...]]:
        """What stands for each control token that is said: the ids of its letters, broken until none is one."""
        # An unknown character is no control token, though it has the id of one.
        control = set(self._control.values()) - {self.tokenizer.unk_token_id}
        spelled = {}
        for token, index in self._control.items():
            ways = (self._ids(way) for way in (_broken(token), " ".join(token)))
            # Where no spelling is free of control tokens, nothing stands for it.
            spelled[index] = next((tuple(ids) for ids in ways if not control & set(ids)), ())
        return {index: ids for index, ids in spelled.items() if index in control}


def _one_line(text: str) -> str:
    return " ".join(line for line in text.splitlines() if line.strip())


def _broken(token: str) -> str:
    """A token that is none: its first letter apart.

    Example
    -------
    >>> _broken("<|im_end|>")
    '< |im_end|>'
    """
    return f"{token[0]} {token[1:]}"
