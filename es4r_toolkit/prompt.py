"""The one renderer of context and reply, for training and generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from jinja2 import TemplateError

from es4r_toolkit.dialogue import Turn
from es4r_toolkit.errors import BackendError

SYSTEM = "You hear how things are said. Answer the speaker with empathy."
_PLACE = "THE-DIALOGUE-STANDS-HERE"


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
    nothing a user says steers the prompt. Thinking modes are off.

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
        self._control_tokens = [token for token in tokenizer.get_added_vocab() if len(token) > 1]
        messages = [{"role": "system", "content": system}, {"role": "user", "content": _PLACE}]
        try:
            rendered = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except TemplateError as fault:
            raise BackendError("chat template", f"refuses a system message ({fault})", "use another model") from fault
        around = rendered.split(_PLACE)
        if len(around) != 2:
            raise BackendError(
                "chat template", f"shows the user's message {len(around) - 1} times", "it must show it once"
            )
        self._prefix, self._suffix = (tuple(self._ids(part)) for part in around)

    def __call__(self, turns: Sequence[Turn]) -> Prompt:
        """Render the history of a dialogue, oldest turn first."""
        history = tuple(tuple(self.plain(f"{turn.role}: {turn.text}\n")) for turn in turns)
        return Prompt(self._prefix, history, self._suffix)

    def reply(self, text: str) -> list[int]:
        """Token ids of a reply, closed by the end token."""
        return [*self.plain(text), self.tokenizer.eos_token_id]

    def text(self, ids: Sequence[int]) -> str:
        """The words of generated ids."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def plain(self, text: str) -> list[int]:
        """Token ids of what somebody said, no control token among them."""
        for token in self._control_tokens:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return self._ids(text)
