"""The strategy tables that recipes share, and the selector that reads them, by hand-worked numbers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from es4r_toolkit.errors import ConfigError
from es4r_toolkit.lobes import EnergyStrategySelector, Prosody

SHARED = Path(__file__).parents[2] / "recipes" / "_shared"
TABLES = ["strategies.yaml", "strategies_paper.yaml"]
RISING, FALLING, STEADY, ALMOST = [1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [1.0, 1.02]


def table(name: str) -> dict:
    return YAML(typ="safe").load(SHARED / name)


def names(selector: EnergyStrategySelector, *dialogues: list[float]) -> list[str]:
    sizes = torch.tensor([len(energies) for energies in dialogues])
    energies = torch.tensor([energy for energies in dialogues for energy in energies])
    return [choice.name for choice in selector(energies, sizes)]


@pytest.mark.parametrize("name", TABLES)
def test_falling_energy_asks_for_comfort_and_rising_for_encouragement(name):
    selector = EnergyStrategySelector(table(name))
    assert names(selector, FALLING, STEADY, RISING) == ["comfort", "neutral", "encourage"]


def test_the_papers_threshold_is_zero_and_ours_has_a_dead_zone():
    assert names(EnergyStrategySelector(table("strategies_paper.yaml")), ALMOST) == ["encourage"]
    assert names(EnergyStrategySelector(table("strategies.yaml")), ALMOST) == ["neutral"]


@pytest.mark.parametrize("name", TABLES)
def test_rates_and_expressiveness_are_the_papers(name):
    choices = EnergyStrategySelector(table(name))(torch.tensor(FALLING + STEADY + RISING), torch.tensor([2, 2, 2]))
    figures = {choice.name: (choice.prosody.rate, choice.prosody.expressiveness) for choice in choices}
    assert figures == {"comfort": (0.85, 1.2), "neutral": (0.95, 1.0), "encourage": (1.0, 1.1)}


def test_the_change_is_the_mean_step_between_neighbours_and_is_compared_to_the_mean_energy():
    (choice,) = EnergyStrategySelector(table("strategies.yaml"))(torch.tensor([2.0, 9.0, 5.0]), torch.tensor([3]))
    assert choice.change == pytest.approx((5 - 2) / 2)
    assert choice.relative_change == pytest.approx((5 - 2) / 2 / (16 / 3))


def test_the_choice_does_not_depend_on_the_recording_level():
    selector = EnergyStrategySelector(table("strategies.yaml"))
    energies = [1.0, 1.5, 1.1]
    assert names(selector, energies) == names(selector, [1000 * e for e in energies], [1e-4 * e for e in energies])[:1]
    quiet, loud = selector(torch.tensor([*energies, *(1000 * e for e in energies)]), torch.tensor([3, 3]))
    assert quiet.relative_change == pytest.approx(loud.relative_change, rel=1e-6)


def test_one_turn_alone_or_a_silent_dialogue_is_no_change():
    selector = EnergyStrategySelector(table("strategies.yaml"))
    choices = selector(torch.tensor([3.0, 0.0, 0.0]), torch.tensor([1, 2]))
    assert [(choice.name, choice.change, choice.relative_change) for choice in choices] == [("neutral", 0.0, 0.0)] * 2


def test_only_the_speakers_turns_count_where_asked():
    selector = EnergyStrategySelector(table("strategies.yaml"), turns="speaker")
    energies, sizes = torch.tensor([1.0, 9.0, 2.0, 9.0, 3.0]), torch.tensor([3, 2])
    speaker = torch.tensor([True, False, True, False, True])
    assert [choice.name for choice in selector(energies, sizes, speaker)] == ["encourage", "neutral"]
    with pytest.raises(ConfigError, match="is_speaker"):
        selector(energies, sizes)


@pytest.mark.parametrize("energy", [-1.0, float("nan"), float("inf")])
def test_an_energy_that_is_none_is_refused(energy):
    with pytest.raises(ConfigError, match="energies"):
        EnergyStrategySelector(table("strategies.yaml"))(torch.tensor([1.0, energy]), torch.tensor([2]))


# -- continuous strategies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("change", [-3.0, -0.06, -0.05, 0.0, 0.01, 0.05, 0.5, 3.0])
def test_continuous_weights_are_shares(name, change):
    selector = EnergyStrategySelector(table(name), mode="continuous")
    weights = selector._choose(change, change).weights
    assert sum(weights.values()) == pytest.approx(1.0, abs=1e-12)
    assert min(weights.values()) >= 0


@pytest.mark.parametrize("change", [-0.4, -0.06, 0.0, 0.04, 0.06, 0.4])
def test_continuous_weights_tend_to_the_discrete_choice_as_softness_falls(change):
    discrete = EnergyStrategySelector(table("strategies.yaml"))._choose(change, change)
    distances = []
    for softness in (0.05, 0.01, 0.0005):
        soft = EnergyStrategySelector(table("strategies.yaml"), mode="continuous", softness=softness)
        choice = soft._choose(change, change)
        distances.append(sum(abs(choice.weights[name] - discrete.weights[name]) for name in choice.weights))
    assert distances[0] >= distances[1] >= distances[2]
    assert distances[2] < 1e-6
    assert choice.name == discrete.name
    assert choice.prosody.rate == pytest.approx(discrete.prosody.rate, abs=1e-6)


def test_the_speaking_rate_moves_without_a_step():
    selector = EnergyStrategySelector(table("strategies.yaml"), mode="continuous")
    rates = [selector._choose(step / 1000, step / 1000).prosody.rate for step in range(-200, 201)]
    assert max(abs(after - before) for before, after in pairwise(rates)) < 0.003
    assert (rates[0], rates[-1]) == (pytest.approx(0.85, abs=1e-3), pytest.approx(1.0, abs=1e-3))


# -- tables of one's own ----------------------------------------------------------------------------------------------


def test_a_fourth_row_works_once_its_neighbour_makes_room():
    rows = table("strategies.yaml")
    rows["encourage"]["to"] = 0.3
    rows["celebrate"] = {"from": 0.3, "rate": 1.2, "expressiveness": 1.5, "energy": 3.0}
    selector = EnergyStrategySelector(rows)
    assert names(selector, FALLING, STEADY, [1.0, 1.2], [1.0, 5.0]) == ["comfort", "neutral", "encourage", "celebrate"]
    (choice,) = selector(torch.tensor([1.0, 5.0]), torch.tensor([2]))
    assert choice.prosody == Prosody(rate=1.2, expressiveness=1.5, energy=3.0)
    assert choice.weights == {"comfort": 0, "neutral": 0, "encourage": 0, "celebrate": 1}
    soft = EnergyStrategySelector(rows, mode="continuous")._choose(0.3, 0.3)
    assert soft.weights["encourage"] == pytest.approx(soft.weights["celebrate"], abs=1e-4)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"neutral": {"from": -0.05, "to": 0.01}}, "ends at 0.01 and the next starts at 0.05"),
        ({"neutral": {"from": -0.05, "to": 0.2}}, "ends at 0.2 and the next starts at 0.05"),
        ({"encourage": {"from": 0.05, "to": 1.0}}, "ends at 1.0 and the next starts at inf"),
        ({"comfort": {"from": -1.0, "to": -0.05}}, "ends at -inf and the next starts at -1.0"),
        ({"neutral": {"from": 0.05, "to": -0.05}}, "ends at|starts at"),
        ({"neutral": {"from": -0.05, "to": 0.05, "speed": 1.0}}, r"\['speed'\]"),
        ({"neutral": {"from": -0.05, "to": 0.05, "rate": 0.0}}, "rate.*positive"),
        ({"neutral": {"from": -0.05, "to": 0.05, "expressiveness": -1.0}}, "expressiveness"),
        ({"neutral": {"from": -0.05, "to": 0.05, "rate": float("nan")}}, "rate"),
        ({"neutral": {"from": -0.05, "to": 0.05, "energy": float("inf")}}, "energy"),
        ({"neutral": {"from": -0.05, "to": 0.05, "pitch_shift": float("nan")}}, "pitch_shift"),
        ({"neutral": {"from": -0.05, "to": float("nan")}}, r"neutral\]\.to"),
        ({"neutral": {"from": -0.05, "to": 0.05, "rate": "slow"}}, "rate: got 'slow'"),
        ({"neutral": None}, r"strategies\[neutral\]: got None"),
    ],
)
def test_a_table_with_a_gap_an_overlap_or_a_bad_value_is_refused(change, problem):
    with pytest.raises(ConfigError, match=problem):
        EnergyStrategySelector({**table("strategies.yaml"), **change})


# -- energies ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def selector() -> EnergyStrategySelector:
    return EnergyStrategySelector(table("strategies.yaml"))


def test_the_energy_of_mels_is_the_mean_norm_of_their_frames(selector):
    mels = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]], [[1.0, 0.0], [9.0, 9.0], [9.0, 9.0]]])
    assert selector.energies(mels, torch.tensor([1.0, 1 / 3])).tolist() == pytest.approx([(5 + 1 + 10) / 3, 1.0])


def test_frames_far_below_the_loudest_are_silence_and_not_counted(selector):
    mels = torch.tensor([[[10.0], [10.0], [0.09], [0.0]]])
    assert selector.energies(mels, torch.ones(1)).item() == pytest.approx(10.0)
    mels[0, 2] = 0.11  # just above -40 dB
    assert selector.energies(mels, torch.ones(1)).item() == pytest.approx((20 + 0.11) / 3)


def test_a_silent_turn_has_no_energy(selector):
    assert selector.energies(torch.zeros(2, 8000), torch.tensor([1.0, 0.5])).tolist() == [0.0, 0.0]
    assert selector.energies(torch.zeros(1, 5, 4), torch.ones(1)).tolist() == [0.0]
    assert selector.energies(torch.rand(2, 100), torch.tensor([1.0, 0.0]))[1] == 0


def test_the_energy_follows_the_amplitude(selector):
    wave = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    base = selector.energies(wave, torch.ones(1))
    torch.testing.assert_close(selector.energies(3 * wave, torch.ones(1)), 3 * base)


def test_a_pause_around_the_words_does_not_lower_the_energy(selector):
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(1, 16000, generator=generator)
    pause = torch.zeros(1, 16000)
    alone = selector.energies(wave, torch.ones(1))
    torch.testing.assert_close(
        selector.energies(torch.cat([pause, wave, pause], 1), torch.ones(1)), alone, rtol=0.03, atol=0
    )
