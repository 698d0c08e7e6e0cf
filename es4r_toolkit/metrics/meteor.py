"""METEOR: words matched as they stand, by stem and by synonym, through NLTK and its WordNet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from zipfile import BadZipFile

from nltk.corpus import wordnet
from nltk.corpus.reader.wordnet import WordNetError
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import single_meteor_score

from es4r_toolkit.errors import BackendError
from es4r_toolkit.metrics.text import tokenize

GET_WORDNET = "python -m nltk.downloader wordnet"


class Meteor:
    """METEOR (Lavie & Agarwal, 2007) as NLTK has it: lower case, alpha 0.9, beta 3, gamma 0.5.

    Synonyms are those of the WordNet that NLTK finds on this machine; nothing is downloaded, and there is no METEOR
    without it. NLTK looks synonyms up by the stems that the step before has left: "happy" has none under "happi".

    Raises
    ------
    BackendError
        If NLTK finds no WordNet, or cannot read the one it finds.
    """

    def __init__(self) -> None:
        try:
            wordnet.ensure_loaded()
        except (LookupError, OSError, ValueError, AssertionError, BadZipFile, WordNetError) as fault:
            missing = type(fault) is LookupError
            reason = str(fault).strip().split("\n")[0][:200]
            problem = "is in none of the folders that NLTK looks in" if missing else f"cannot be read ({reason})"
            raise BackendError("WordNet", problem, f"get it with: {GET_WORDNET}") from fault
        # NLTK asks them for every word of every pair anew, which is most of its time.
        self.stem, self.synsets = cache(PorterStemmer().stem), cache(wordnet.synsets)

    def __call__(self, hypotheses: Sequence[str], references: Sequence[str]) -> list[float]:
        """Of each reply and its reference, in [0, 1]; 0 for an empty reply."""
        return [
            single_meteor_score(tokenize(target), tokenize(text), stemmer=self, wordnet=self)
            for text, target in zip(hypotheses, references)
        ]
