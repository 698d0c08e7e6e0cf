"""Word errors of what a recognizer heard against what was to be said, through jiwer."""

from __future__ import annotations

from functools import cache

from es4r_toolkit.errors import BackendError

# White space, a hyphen, dash, slash or ellipsis parts words; other punctuation, apostrophes too, is taken out of them.
PARTING = r"[-\s\u2010-\u2015\u2026/]|\.\.+"


def spoken_words(text: str) -> list[str]:
    """The words of a text as a recognizer could have written them: lower case, without punctuation.

    Numbers stay as they are written, so a reply should spell them.

    Raises
    ------
    BackendError
        If jiwer is not installed.

    Example
    -------
    >>> spoken_words("I\u2019m well-known \u2026 Or so?")
    ['im', 'well', 'known', 'or', 'so']
    """
    return _normalize()(text)[0]


def word_errors(wanted: list[str], heard: list[str]) -> int:
    """Substitutions, deletions and insertions between two lists of words.

    Example
    -------
    >>> word_errors(["so", "sorry", "to", "hear"], ["so", "sorry", "too", "here", "now"])
    3
    """
    import jiwer

    if not wanted:
        return len(heard)
    found = jiwer.process_words(" ".join(wanted), " ".join(heard))
    return found.substitutions + found.deletions + found.insertions


@cache
def _normalize() -> object:
    try:
        import jiwer
    except ImportError as fault:
        raise BackendError(
            "jiwer", f"is not installed ({fault})", "pip install 'es4r-toolkit[speech-metrics]'"
        ) from fault
    return jiwer.Compose(
        [
            jiwer.SubstituteRegexes({PARTING: " "}),
            jiwer.ToLowerCase(),
            jiwer.RemovePunctuation(),
            jiwer.RemoveMultipleSpaces(),
            jiwer.Strip(),
            jiwer.ReduceToListOfListOfWords(),
        ]
    )
