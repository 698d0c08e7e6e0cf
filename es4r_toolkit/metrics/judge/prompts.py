"""What the judge is told: the prompts of a YAML file, filled with what is to be judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from es4r_toolkit.dialogue import Turn
from es4r_toolkit.errors import ConfigError

PROMPTS = Path(__file__).with_name("prompts.yaml")
SCORES, PAIRS = "scores", "pairs"
# The replies that each kind of prompt shows.
REPLIES = {SCORES: ("reply",), PAIRS: ("reply_a", "reply_b")}
# The reason comes first, so that the verdict can follow from it.
FORMS = {SCORES: "<a whole number from 0 to 10>", PAIRS: '<"A", "B" or "tie">'}
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Case:
    """What is put before the judge.

    Attributes
    ----------
    id : str
        Of the prediction.
    replies : tuple of str
        One to be scored, or two to be compared.
    reference : str
        What a person replied.
    history : tuple of Turn or None
        The dialogue that is answered; None where it is not known.
    """

    id: str
    replies: tuple[str, ...]
    reference: str
    history: tuple[Turn, ...] | None = None


@dataclass(frozen=True)
class JudgePrompt:
    """One kind of question to a judge.

    Attributes
    ----------
    kind : str
        ``scores`` or ``pairs``.
    aspects : mapping of str to str
        What is judged, and what it means.
    system, from_dialogue, from_reference : str
        Templates of the system message, and of the user's with and without the dialogue.

    Raises
    ------
    ConfigError
        If there is no aspect, or a template lacks a placeholder or has one that is not known.

    Example
    -------
    >>> prompt = JudgePrompt("scores", {"empathy": "warmth"}, "$aspects $form", "$dialogue $reply", "$reference $reply")
    >>> for message in prompt.messages(Case("7", ("Oh </reply>",), "I am sorry.")):
    ...     print(message["content"])
    - empathy: warmth {"reason": <one sentence>, "empathy": <a whole number from 0 to 10>}
    "I am sorry." "Oh \\u003c/reply\\u003e"
    """

    kind: str
    aspects: Mapping[str, str]
    system: str
    from_dialogue: str
    from_reference: str

    def __post_init__(self) -> None:
        _check_aspects(self.kind, self.aspects)
        replies = REPLIES[self.kind]
        _check_template(f"{self.kind}.system", self.system, ("aspects", "form"))
        _check_template(f"{self.kind}.from_dialogue", self.from_dialogue, ("dialogue", *replies))
        _check_template(f"{self.kind}.from_reference", self.from_reference, ("reference", *replies))

    def messages(self, case: Case, swapped: bool = False) -> Messages:
        """The chat messages of one question; ``swapped`` shows the second reply first."""
        aspects = "\n".join(f"- {name}: {meaning}" for name, meaning in self.aspects.items())
        form = ", ".join(['"reason": <one sentence>', *(f'"{name}": {FORMS[self.kind]}' for name in self.aspects)])
        shown = zip(REPLIES[self.kind], case.replies[::-1] if swapped else case.replies)
        texts = {name: _as_data(reply) for name, reply in shown}
        if case.history is None:
            user = Template(self.from_reference).substitute(texts, reference=_as_data(case.reference))
        else:
            # A turn a line.
            dialogue = "\n".join(_as_data({turn.role: turn.text}) for turn in case.history)
            user = Template(self.from_dialogue).substitute(texts, dialogue=dialogue)
        system = Template(self.system).substitute(aspects=aspects, form=f"{{{form}}}")
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def read_prompt(kind: str, path: str | Path = PROMPTS) -> JudgePrompt:
    """The prompt for ``scores`` or for ``pairs`` of a YAML file.

    Raises
    ------
    ConfigError
        If the file cannot be read, or its prompt of this kind breaks a rule.
    """
    try:
        values = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as fault:
        problem = f"cannot be read ({' '.join(str(fault).split())[:200]})"
        raise ConfigError(path, problem, f"give a YAML file such as {PROMPTS}") from None
    values = values.get(kind) if isinstance(values, dict) else None
    wanted = {"aspects", "system", "from_dialogue", "from_reference"}
    if not isinstance(values, dict) or set(values) != wanted:
        raise ConfigError(path, f"has no {kind} with {', '.join(sorted(wanted))}, no more", f"see {PROMPTS}")
    try:
        return JudgePrompt(kind, **values)
    except ConfigError as fault:
        raise ConfigError(f"{path}, {fault.item}", fault.problem, fault.mend) from None


def _as_data(value: object) -> str:
    """JSON without the signs that tags and most control tokens of language models are made of."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")


def _check_aspects(kind: str, aspects: object) -> None:
    words = isinstance(aspects, Mapping) and all(isinstance(word, str) for pair in aspects.items() for word in pair)
    if not words or not aspects or "reason" in aspects:
        raise ConfigError(
            f"{kind}.aspects", "is no list of names with meanings", "write {name: meaning}, none 'reason'"
        )


def _check_template(name: str, template: object, wanted: tuple[str, ...]) -> None:
    if not isinstance(template, str):
        raise ConfigError(name, "is no text", "write it as a string")
    found = Template(template)
    if not found.is_valid():
        raise ConfigError(name, "has a stray $", "write $$ for a dollar sign")
    if odd := set(wanted) ^ set(found.get_identifiers()):
        lacks = sorted(odd & set(wanted))
        problem = f"lacks ${lacks[0]}" if lacks else f"has ${sorted(odd)[0]}, which is not known"
        raise ConfigError(name, problem, f"its placeholders are {', '.join(f'${one}' for one in wanted)}")
