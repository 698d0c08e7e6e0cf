"""es4r latency: what it counts, writes and draws."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from es4r_toolkit.cli import app
from es4r_toolkit.inference.latency import spoken_turns, time_conversations

pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'")
SEGMENTS = ["decoding", "recognition", "understanding", "first_token", "first_sentence", "first_audio", "rest"]


@pytest.fixture(scope="module")
def timed(tmp_path_factory) -> tuple:
    output = tmp_path_factory.mktemp("latency")
    options = ["--turns", "3", "--conversations", "2", "--seconds", "1.5", "--written"]
    result = CliRunner().invoke(app, ["latency", "--output", str(output), *options])
    assert result.exit_code == 0, result.output
    return output, json.loads((output / "latency.json").read_text()), result.output


def test_every_turn_is_counted_with_what_went_before_it(timed):
    _, found, _ = timed
    assert [turn["turns"] for turn in found["each"]] == [0, 2, 4] * 2
    assert found["turns"] == 6
    for first, second, third in (found["each"][:3], found["each"][3:]):
        assert first["history_seconds"] == 0 < second["history_seconds"] < third["history_seconds"]


def test_the_segments_of_a_turn_add_up_to_its_wait(timed):
    for turn in timed[1]["each"]:
        assert list(turn["segments"]) == SEGMENTS
        waited = sum(seconds for name, seconds in turn["segments"].items() if name != "rest")
        assert turn["to_first_audio"] == pytest.approx(waited, abs=1e-3)
        assert turn["segments"]["understanding"] > 0
        assert turn["segments"]["first_audio"] > 0


def test_percentiles_stand_above_their_medians(timed):
    for row in [*timed[1]["segments"].values(), timed[1]["to_first_audio"]]:
        assert 0 <= row["median"] <= row["p95"]


def test_what_was_measured_is_printed_and_drawn(timed):
    output, found, printed = timed
    assert f"{found['to_first_audio']['median']:.3f}" in printed
    for name in ("waterfall.svg", "by_history.svg"):
        assert (output / name).read_text().startswith("<svg")


def test_a_turn_that_is_timed_was_never_heard_before(monkeypatch):
    from es4r_toolkit.inference import EmpathyResponder

    responder = EmpathyResponder.from_hparams()
    turns = spoken_turns(responder.pipeline.synthesis.voice, responder.sample_rate, 1.0)
    heard = []
    hear = type(responder.pipeline).hear
    monkeypatch.setattr(type(responder.pipeline), "hear", lambda *given: heard.append(given[1].role) or hear(*given))
    assert len(list(time_conversations(responder, turns, 2, 2, text="Hello there."))) == 4
    assert heard.count("speaker") == 5  # one before the first
