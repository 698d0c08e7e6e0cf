"""The two losses against plain sums, on reply positions only."""

from __future__ import annotations

import math

import pytest
import torch

from es4r_toolkit.errors import ConfigError
from es4r_toolkit.lobes.emotion_head import UNLABELLED
from es4r_toolkit.losses import emotion_cross_entropy, response_cross_entropy, response_kl

TARGETS = torch.tensor([[1, 4, 0], [2, 0, 0]])
VALID = torch.tensor([[True, True, True], [True, False, False]])


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 5, generator=generator) * 2 for _ in range(2)]


def distribution(row, temperature=1.0):
    exponents = [math.exp(float(value) / temperature) for value in row]
    return [value / sum(exponents) for value in exponents]


def positions():
    return [(row, place) for row in range(2) for place in range(3) if VALID[row, place]]


def test_cross_entropy_is_the_mean_over_all_reply_tokens_of_the_batch(logits):
    terms = [-math.log(distribution(logits[0][row, place])[TARGETS[row, place]]) for row, place in positions()]
    assert float(response_cross_entropy(logits[0], TARGETS, VALID)) == pytest.approx(sum(terms) / 4, rel=1e-5)


@pytest.mark.parametrize("direction", ["speech_text", "text_speech"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_divergence_is_the_mean_over_all_reply_tokens_of_the_batch(logits, direction, temperature):
    terms = []
    for row, place in positions():
        speech, text = (distribution(path[row, place], temperature) for path in logits)
        first, second = (speech, text) if direction == "speech_text" else (text, speech)
        terms.append(sum(p * math.log(p / q) for p, q in zip(first, second)))
    assert float(response_kl(*logits, VALID, temperature, direction)) == pytest.approx(sum(terms) / 4, rel=1e-4)


def test_the_papers_divergence_is_of_speech_from_text_at_temperature_two(logits):
    assert torch.equal(response_kl(*logits, VALID), response_kl(*logits, VALID, 2.0, "speech_text"))
    assert not torch.allclose(response_kl(*logits, VALID), response_kl(*logits, VALID, direction="text_speech"))


def test_what_stands_at_padding_changes_neither_loss(logits):
    before = response_cross_entropy(logits[0], TARGETS, VALID), response_kl(*logits, VALID)
    for path in logits:
        path[~VALID] = 100.0
    targets = TARGETS.masked_fill(~VALID, 3)
    assert before == (response_cross_entropy(logits[0], targets, VALID), response_kl(*logits, VALID))


@pytest.mark.parametrize("direction", ["speech_text", "text_speech"])
def test_the_text_path_is_a_teacher_that_gets_no_gradient(logits, direction):
    speech, text = (path.requires_grad_() for path in logits)
    response_kl(speech, text, VALID, direction=direction).backward()
    assert text.grad is None
    assert speech.grad[VALID].abs().sum() > 0
    assert (speech.grad[~VALID] == 0).all()


def test_half_precision_logits_are_summed_in_single_precision(logits):
    for loss in (
        response_cross_entropy(logits[0].half(), TARGETS, VALID),
        response_kl(*(path.half() for path in logits), VALID),
    ):
        assert loss.dtype == torch.float32


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": -1.0}, {"direction": "both"}])
def test_a_bad_option_is_refused(logits, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        response_kl(*logits, VALID, **options)


def test_emotions_are_weighed_over_the_labelled_turns_alone():
    logits = torch.tensor([[1.0, 0.0], [0.0, 2.0], [9.0, -9.0]], requires_grad=True)
    loss = emotion_cross_entropy(logits, torch.tensor([0, 0, UNLABELLED]))
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert bool((logits.grad[2] == 0).all())


def test_a_batch_without_a_label_costs_nothing_and_keeps_its_gradient():
    logits = torch.randn(3, 2, requires_grad=True)
    loss = emotion_cross_entropy(logits, torch.full((3,), UNLABELLED))
    loss.backward()
    assert loss.item() == 0
    assert bool((logits.grad == 0).all())
