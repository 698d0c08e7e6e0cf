"""es4r judge between two systems: both orders, ties, and a judge that prefers a place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from judge_command import COMPARED, judge, result_of, shown, write_predictions
from judge_server import Answer, says


def compared(choose: Callable[[str, str], str]) -> Callable[[str, int], Answer]:
    """A judge that chooses between what it is shown as A and as B."""

    def answer(user: str, times: int) -> Answer:
        chosen = choose(*(shown(user, tag)[0] for tag in ("reply_a", "reply_b")))
        return says(json.dumps(dict.fromkeys(COMPARED, chosen)))

    return answer


def two_systems(folder: Path, number: int = 4) -> Path:
    write_predictions(folder, {f"{place}": f"A kind word, {place}." for place in range(number)})
    return write_predictions(folder, {f"{place}": f"Hm, {place}." for place in range(number)}, "other.jsonl")


def test_the_better_system_wins_wherever_it_is_shown(tmp_path, server):
    other = two_systems(tmp_path)
    server.answer = compared(lambda a, b: "A" if "kind" in a else "B")
    printed = judge(tmp_path, server, "--against", other).stdout
    assert len(server.bodies) == 8
    result = result_of(tmp_path)
    row = result["pairs"]["empathy"]
    assert (row["win"], row["tie"], row["lose"], row["net"], row["flipped"]) == (1, 0, 0, 1, 0)
    assert row["win_interval"] == [1, 1]
    assert result["position_bias"]["flipped"] == 0
    assert "scores" not in result
    assert "empathy         1.000  0.000  0.000  +1.000  [+1.000, +1.000]  p " in printed


def test_the_same_systems_turned_round_lose(tmp_path, server):
    two_systems(tmp_path)
    (tmp_path / "predictions.jsonl").rename(tmp_path / "kind.jsonl")
    (tmp_path / "other.jsonl").rename(tmp_path / "predictions.jsonl")
    server.answer = compared(lambda a, b: "A" if "kind" in a else "B")
    judge(tmp_path, server, "--against", tmp_path / "kind.jsonl")
    assert (result_of(tmp_path)["pairs"]["topic"]["lose"], result_of(tmp_path)["pairs"]["topic"]["net"]) == (1, -1)


def test_a_judge_that_prefers_a_place_gives_ties_and_is_found_out(tmp_path, server):
    other = two_systems(tmp_path)
    server.answer = compared(lambda a, b: "B" if "3" in a else "A")
    printed = judge(tmp_path, server, "--against", other).stdout
    result = result_of(tmp_path)
    row = result["pairs"]["action"]
    assert (row["win"], row["tie"], row["lose"], row["net"], row["p"], row["flipped"]) == (0, 1, 0, 0, 1, 4)
    # 4 pairs of 5 aspects; one pair went to the reply shown second both times.
    assert result["position_bias"] == {
        "verdicts": 20,
        "flipped": 20,
        "share": 1.0,
        "to_the_first_shown": 15,
        "to_the_second_shown": 5,
    }
    assert (
        "position bias  1.000 of 20 verdicts turned with the order: 15 to the first shown, 5 to the second" in printed
    )


def test_a_verdict_that_is_a_tie_in_one_order_is_a_tie(tmp_path, server):
    other = two_systems(tmp_path)
    server.answer = compared(lambda a, b: "A" if "kind" in a else "tie")
    judge(tmp_path, server, "--against", other)
    row = result_of(tmp_path)["pairs"]["topic"]
    assert (row["tie"], row["flipped"], row["wavering"]) == (1, 0, 4)


def test_a_pair_without_both_answers_is_not_judged(tmp_path, server):
    other = two_systems(tmp_path)
    server.answer = lambda user, times: (
        says("A") if shown(user, "reply_a") == ["Hm, 1."] else compared(lambda a, b: "tie")(user, times)
    )
    judge(tmp_path, server, "--against", other, status=1)
    result = result_of(tmp_path)
    assert (result["judged"], result["unparsable"]) == (3, 1)
    assert [one["id"] for one in result["not_judged"]] == ["1"]


def test_a_dry_run_of_two_systems_counts_both_orders(tmp_path, server):
    other = two_systems(tmp_path)
    plan = json.loads(judge(tmp_path, server, "--against", other, "--dry-run", "--json").stdout)
    assert (plan["cases"], plan["requests"]) == (4, 8)
