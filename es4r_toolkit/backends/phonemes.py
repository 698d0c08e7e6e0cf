"""Texts as voices read them: sentences, and phonemes with their punctuation."""

from __future__ import annotations

import re
from collections.abc import Iterator

from es4r_toolkit.backends.espeak_process import EspeakProcess
from es4r_toolkit.errors import BackendError

SECONDS = 30.0  # that one text may take
PUNCTUATION = ';:,.!?¡¿—…"«»“”'
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])")
_MARKS = re.compile(rf"(\s*[{re.escape(PUNCTUATION)}]+\s*)")
# espeak-ng says where it changes the language, such as (en)bonjour(fr); control characters would be commands to it.
_LANGUAGE = re.compile(r"\([a-z-]+\)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def sentences(text: str) -> list[str]:
    """The sentences of a text that have a word in them; the text itself where there is none.

    Example
    -------
    >>> sentences("I see. ... Tell me more!")
    ['I see.', 'Tell me more!']
    """
    return [part for part in _SENTENCE_END.split(text) if any(map(str.isalnum, part))] or [text]


class EspeakPhonemizer:
    """Texts to IPA with stress and punctuation, by espeak-ng, as the published voices were trained.

    Arguments
    ---------
    voice : str
        A language of espeak-ng.

    Raises
    ------
    BackendError
        When first asked, if the wheel ``espeakng_loader`` is missing or the voice unknown.
    """

    def __init__(self, voice: str = "en-us"):
        self.voice, self._espeak = voice, EspeakProcess()

    def __call__(self, text: str) -> str:
        """A text -> its phonemes, words parted by spaces and punctuation where it was.

        Raises
        ------
        BackendError
            If there is nothing to say.
        """
        pieces = list(self._pieces(_CONTROL.sub(" ", text).encode(errors="replace").decode()))
        if not any(map(str.isalpha, "".join(pieces))):
            shown = repr(text if len(text) <= 40 else text[:40] + "...")
            raise BackendError(f"text {shown}", f"holds nothing that voice {self.voice!r} can say", "give a word")
        return "".join(pieces).strip()

    def _pieces(self, text: str) -> Iterator[str]:
        for place, piece in enumerate(_MARKS.split(text)):
            if place % 2:
                # With a space after it, and before an opening mark.
                marks = piece.strip()
                yield (" " if marks[0] in "¡¿«“" else "") + marks + " "
            elif piece.strip():
                request = {"text": piece.strip(), "voice": self.voice, "phonemes": True, "seconds": SECONDS}
                clauses = self._espeak.ask(request)[1]["phonemes"]
                yield " ".join(_LANGUAGE.sub("", " ".join(clauses)).replace("_", " ").split())
