"""The benchmark's workload, at a small size: its tokens, its audio, a step and a first token."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import workload
from breakdown import memory_mb, time_by_kind
from timing import measure, summary

SMALL = workload.Sizes(
    encoder_width=32,
    encoder_layers=1,
    encoder_heads=4,
    hidden=32,
    layers=1,
    heads=4,
    head_size=8,
    key_value_heads=4,
    intermediate=48,
    vocabulary=400,
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return workload.build_pipeline(tmp_path_factory.mktemp("bench"), SMALL)


@pytest.fixture(scope="module")
def batch():
    return workload.batch_of([[workload.synthetic_speech(8000 + 900 * turn, turn) for turn in range(5)]] * 2)


def test_the_workload_has_the_tokens_it_states(pipeline, batch):
    prompt = pipeline.generation.render(batch.dialogues[0].history)
    assert (len(prompt.prefix), len(prompt.history), len(prompt.suffix)) == (24, 160, 0)
    assert pipeline(batch).speech.shape == (2, 40, 400)
    frozen = {name.split(".")[1] for name, weight in pipeline.named_parameters() if not weight.requires_grad}
    assert frozen == {"encoder"}


def test_a_step_reaches_every_trained_weight_and_leaves_no_gradient(pipeline, batch):
    reached = set()
    hooks = [
        weight.register_hook(lambda _, name=name: reached.add(name))
        for name, weight in pipeline.named_parameters()
        if weight.requires_grad
    ]
    workload.train_step(pipeline.train(), batch)
    assert len(reached) == len(hooks)
    assert all(weight.grad is None for weight in pipeline.parameters())


def test_the_first_token_follows_from_the_log_mels(pipeline, batch):
    mels, counts = pipeline.eval().understanding.features(batch.waveforms, batch.wav_lens)
    logits = workload.first_token(pipeline, mels, counts, batch)
    assert logits.shape == (2, 1, 400)
    torch.testing.assert_close(logits[0], logits[1])


def test_the_audio_is_as_long_as_stated_and_says_where_it_is_from():
    dialogues, source = workload.spoken_dialogues()
    assert source == ("avamerg_demo" if workload.DEMO.is_dir() else "synthetic")
    assert [len(turns) for turns in dialogues] == [5] * 4
    assert sum(len(turn) for turns in dialogues for turn in turns) / workload.RATE == pytest.approx(137.5, abs=0.1)


def test_a_figure_is_a_median_with_its_spread():
    assert summary([3.0, 1.0, 2.0]) == {"median": 2.0, "spread": [1.0, 3.0], "repeats": 3}
    calls = []
    assert len(measure(lambda: calls.append(1), repeats=4)) == 4
    assert len(calls) == 5


def test_the_breakdown_tells_kinds_of_operators_and_what_is_kept():
    layer, heads = torch.nn.Linear(640, 512, bias=False), torch.randn(1, 8, 256, 64)
    inputs = torch.randn(500, 640)
    spent = time_by_kind(lambda: (layer(inputs), torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)))
    assert spent["matrix products"] > 0 < spent["attention"]
    assert spent["convolutions"] == 0
    assert spent["all"] == pytest.approx(sum(spent.values()) - spent["all"], abs=0.3)
    wide = torch.nn.Linear(1000, 500, bias=False)
    assert memory_mb(wide, lambda: wide(torch.randn(250, 1000)).sum().backward()) == {
        "weights": 2.0,
        "gradients": 2.0,
        "kept_for_backward": 1.0,
    }
