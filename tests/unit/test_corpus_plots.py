"""Pictures of many dialogues: what is drawn is told in words too, and that is what is tested."""

from __future__ import annotations

import numpy as np
import pytest

from es4r_toolkit.errors import ConfigError
from es4r_toolkit.metrics.cohesion import Cohesion
from es4r_toolkit.report import EnergyPath
from es4r_toolkit.report.corpus_plots import cohesion_maps, energy_trajectories


def many(strategy, *energies):
    return [EnergyPath(strategy, [scale * energy for energy in energies]) for scale in (1.0, 2.0, 10.0)]


def test_energy_trajectories_are_means_of_shares_and_not_of_loudness():
    """A recording ten times as loud counts as much as any other."""
    alt = energy_trajectories([*many("comfort", 3.0, 1.0), *many("encourage", 1.0, 2.0, 3.0)]).alt
    assert "6 dialogues" in alt
    assert "comfort: 150%, 50%" in alt
    assert "encourage: 50%, 100%, 150%" in alt


def test_silent_and_single_turns_have_no_trajectory():
    assert energy_trajectories([EnergyPath("comfort", [1.0]), EnergyPath("comfort", [0.0, 0.0])]) is None


def test_cohesion_maps_tell_the_ratio_of_all_dialogues_though_they_show_few():
    rng = np.random.default_rng(3)
    turns = [rng.normal(size=(4, 6)) + 2 for _ in range(40)]
    picture = cohesion_maps({"before": turns, "after": [one + 3 for one in turns]})
    assert "48 turns of 12 dialogues" in picture.alt
    assert f"before dual attention: ratio {Cohesion(turns).ratio:.2f}" in picture.alt


def test_cohesion_maps_of_other_turns_are_refused():
    with pytest.raises(ConfigError, match="other turns"):
        cohesion_maps({"before": [np.ones((2, 3))], "after": [np.ones((3, 3))]})
