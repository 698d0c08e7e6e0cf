"""One exception family: what failed, which item, how to mend it."""

from __future__ import annotations


class ES4RError(Exception):
    """A fault that a user can mend; printed as one line, never as a traceback.

    Arguments
    ---------
    item : object
        The file, dialogue or argument at fault.
    problem : str
        What is wrong, with the value seen and the bound it breaks.
    mend : str
        What to do about it.

    Example
    -------
    >>> print(AudioError("a.wav", "has no samples", "record it again"))
    a.wav: has no samples; record it again
    """

    def __init__(self, item: object, problem: str = "", mend: str = ""):
        self.item, self.problem, self.mend = str(item), problem, mend
        super().__init__(f"{item}" + (f": {problem}" if problem else "") + (f"; {mend}" if mend else ""))

    def __reduce__(self) -> tuple:
        # Loader processes send their errors home.
        return type(self), (self.item, self.problem, self.mend)


class AudioError(ES4RError):
    """An audio file or waveform that cannot be used."""


class DialogueError(ES4RError):
    """A dialogue, manifest or prediction that breaks the schema."""


class ConfigError(ES4RError):
    """A constructor argument, YAML value or command line that breaks a rule."""


class BackendError(ES4RError):
    """An encoder, language model or synthesizer that is missing or unfit."""


class ContextError(BackendError):
    """A dialogue that is longer than what the language model can read."""


class TrainingError(ES4RError):
    """A training that cannot go on."""


def require(condition: bool, argument: str, value: object, rule: str) -> None:
    """Raise ConfigError unless a constructor argument keeps its rule.

    Example
    -------
    >>> require(80 % 3 == 0, "num_heads", 3, "must divide input_size 80")
    Traceback (most recent call last):
    ...
    es4r_toolkit.errors.ConfigError: num_heads: got 3; must divide input_size 80
    """
    if not condition:
        raise ConfigError(argument, f"got {value!r}", rule)
