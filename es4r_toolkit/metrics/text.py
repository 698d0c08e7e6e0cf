"""BLEU, ROUGE and distinct-n of replies against references, as in the ES4R paper's table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from es4r_toolkit.errors import ConfigError
from es4r_toolkit.metrics.bootstrap import Bootstrap, resampled_bleu

# BLEU-3 with .33 is what the paper's script says; thirds would change the fourth digit.
BLEU_WEIGHTS = {
    "bleu1": (1.0,),
    "bleu2": (0.5, 0.5),
    "bleu3": (0.33, 0.33, 0.33),
    "bleu4": (0.25, 0.25, 0.25, 0.25),
}
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
ABBREVIATIONS = {"dr", "mr", "mrs", "ms", "prof", "st", "vs", "e.g", "i.e", "a.m", "p.m"}


def tokenize(text: str) -> list[str]:
    """Split a text into words and punctuation marks.

    `nltk.word_tokenize` is the word tokenizer used here after a sentence splitter whose trained model must be
    downloaded. The same splitter with a short list of abbreviations needs nothing, and differs only after rarer
    abbreviations at the end of what looks like a sentence.

    Example
    -------
    >>> tokenize("I'm lost. It's hard, isn't it?")
    ['I', "'m", 'lost', '.', 'It', "'s", 'hard', ',', 'is', "n't", 'it', '?']
    """
    sentences, words = _tokenizers()
    return [word for sentence in sentences.tokenize(text) for word in words.tokenize(sentence)]


def text_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Score replies against one reference each.

    Arguments
    ---------
    hypotheses : sequence of str
        What the model said; an empty reply counts as a reply without words.
    references : sequence of str
        What it should have said, in the same order.

    Returns
    -------
    dict of str to float
        All in [0, 1]. ``bleu1`` to ``bleu4``: corpus BLEU, smoothing method 1, case kept. ``rouge1``, ``rouge2``,
        ``rougeL``: mean F measure, lower case, without stemming. ``distinct1``, ``distinct2``: different n-grams
        over all n-grams of the whole corpus of replies.

    Raises
    ------
    ConfigError
        If there is nothing to score or the two differ in number.

    Example
    -------
    >>> scores = text_scores(["a b"], ["a b c d"])
    >>> round(scores["bleu1"], 4), scores["distinct1"]
    (0.3679, 1.0)
    """
    if len(hypotheses) != len(references):
        raise ConfigError("hypotheses", f"are {len(hypotheses)} for {len(references)} references", "give one for each")
    if not hypotheses:
        raise ConfigError("hypotheses", "are none", "give at least one reply to score")
    tokens = [tokenize(text) for text in hypotheses]
    targets = [[tokenize(text)] for text in references]
    smooth = SmoothingFunction().method1
    scores = {
        name: float(corpus_bleu(targets, tokens, weights=weights, smoothing_function=smooth))
        for name, weights in BLEU_WEIGHTS.items()
    }
    scores |= {name: sum(values) / len(values) for name, values in _rouge(hypotheses, references).items()}
    scores |= {"distinct1": distinct(tokens, 1), "distinct2": distinct(tokens, 2)}
    return scores


def text_intervals(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals (95 %) of the BLEU and ROUGE scores of ``text_scores``, from the same arguments.

    Not of distinct-n: a resample repeats replies and is less distinct for that alone.
    """
    bootstrap = Bootstrap(len(hypotheses))
    drawn = text_resamples(hypotheses, references, bootstrap)
    return {name: bootstrap.quantiles(scores) for name, scores in drawn.items()}


def text_resamples(hypotheses: Sequence[str], references: Sequence[str], bootstrap: Bootstrap) -> dict[str, np.ndarray]:
    """The same scores in each resample (resamples,)."""
    tokens, targets = ([tokenize(text) for text in texts] for texts in (hypotheses, references))
    drawn = {name: resampled_bleu(bootstrap.counts, tokens, targets, weights) for name, weights in BLEU_WEIGHTS.items()}
    return drawn | {name: bootstrap.means(values) for name, values in _rouge(hypotheses, references).items()}


def distinct(corpus: Sequence[Sequence[str]], order: int) -> float:
    """Different n-grams over all n-grams of a tokenized corpus; 0 where there are none.

    N-grams do not run across texts.

    Example
    -------
    >>> distinct([["so", "so", "sad"], ["so"]], 1)
    0.5
    """
    grams = [gram for tokens in corpus for gram in _ngrams(tokens, order)]
    return len(set(grams)) / len(grams) if grams else 0.0


@cache
def _tokenizers() -> tuple[PunktSentenceTokenizer, NLTKWordTokenizer]:
    parameters = PunktParameters()
    parameters.abbrev_types = ABBREVIATIONS
    return PunktSentenceTokenizer(parameters), NLTKWordTokenizer()


def _ngrams(tokens: Sequence[str], order: int) -> Iterator[tuple[str, ...]]:
    return zip(*(tokens[start:] for start in range(order)))


def _rouge(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    # The library's own tokenizer, named, since its default is announced in the log at every call.
    scorer = RougeScorer(list(ROUGE_TYPES), tokenizer=DefaultTokenizer(use_stemmer=False))
    each = [scorer.score(target, text) for target, text in zip(references, hypotheses)]
    return {name: [score[name].fmeasure for score in each] for name in ROUGE_TYPES}
