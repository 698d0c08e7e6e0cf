"""The waterfall: bars that follow one another, the first sound marked, and every figure in words."""

from __future__ import annotations

import pytest

from es4r_toolkit.errors import ConfigError
from es4r_toolkit.report import latency_plots
from es4r_toolkit.report.latency_plots import waterfall

SEGMENTS = {"decoding": 0.01, "recognition": 0.3, "understanding": 0.05, "first_audio": 0.04, "rest": 1.2}


@pytest.fixture
def axes(monkeypatch):
    """The axes of the picture drawn last."""
    drawn = []

    def keep(width, height):
        figure, axes = make(width, height)
        drawn.append(axes)
        return figure, axes

    make = latency_plots.axes_of_size
    monkeypatch.setattr(latency_plots, "axes_of_size", keep)
    return lambda: drawn[-1]


def test_each_bar_begins_where_the_one_above_it_ends(axes):
    waterfall(SEGMENTS)
    bars = axes().patches
    assert [round(bar.get_width()) for bar in bars] == [10, 300, 50, 40, 1200]
    assert [round(bar.get_x()) for bar in bars] == [0, 10, 310, 360, 400]
    assert [text.get_text() for text in axes().get_yticklabels()] == [
        "decoding",
        "recognition",
        "understanding",
        "first audio",
        "rest of the reply",
    ]


def test_the_first_sound_is_marked_where_its_segment_ends(axes):
    assert waterfall(SEGMENTS).alt.endswith("rest of the reply 1.20 s. First audio after 400 ms.")
    assert [round(line.get_xdata()[0]) for line in axes().lines] == [400]
    assert "First audio" not in waterfall({"decoding": 0.1}).alt


def test_a_whisker_ends_at_the_95th_percentile(axes):
    picture = waterfall({"decoding": 0.1, "recognition": 0.2}, p95={"decoding": 0.15, "recognition": 0.5})
    assert [[round(x) for x in line.get_xdata()] for line in axes().lines] == [
        [100, 150],
        [150, 150],
        [300, 600],
        [600, 600],
    ]
    assert picture.alt == "Waterfall of seconds: decoding 100 ms (95 %: 150 ms), recognition 200 ms (95 %: 500 ms)."


def test_long_waits_are_told_in_seconds(axes):
    waterfall({"recognition": 17.0, "first_audio": 1.0})
    assert axes().get_xlabel() == "s from the end of the turn"
    assert [round(bar.get_width()) for bar in axes().patches] == [17, 1]


@pytest.mark.parametrize("segments", [{}, {"decoding": -0.1}, {"decoding": float("nan")}])
def test_what_is_no_wait_is_refused(segments):
    with pytest.raises(ConfigError, match="segments"):
        waterfall(segments)
