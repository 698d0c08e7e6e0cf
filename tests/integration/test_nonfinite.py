"""Numbers that go wrong in training: the batch is named, kept and left out, and no weight ever holds them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import forked
import pytest
import torch
from safetensors.torch import load_file
from tones import lines_of
from torch import Tensor
from typer.testing import CliRunner

from es4r_toolkit.brain import ES4RBrain
from es4r_toolkit.cli import app
from es4r_toolkit.data import feature_store
from es4r_toolkit.data.kept_batches import KeptBatch
from es4r_toolkit.errors import DialogueError
from es4r_toolkit.training import run_recipe

BAD = "train-3"
as_always = ES4RBrain.loss_terms


def spoil(term: str, *dialogues: str):
    """What ES4RBrain.loss_terms is where one term of some dialogues is NaN."""

    def loss_terms(brain, predictions, batch):
        terms = as_always(brain, predictions, batch)
        return {**terms, term: terms[term] * math.nan} if {*dialogues, BAD} & set(ids(batch)) else terms

    return loss_terms


def spoil_gradient(brain, predictions, batch) -> dict[str, Tensor]:
    """A finite loss whose gradient is not: the root of zero."""
    terms = as_always(brain, predictions, batch)
    if BAD not in ids(batch):
        return terms
    weight = brain.pipeline.generation.fusion.attention.query.weight
    return {**terms, "cross_entropy": terms["cross_entropy"] + (0 * weight.sum()).sqrt()}


def ids(batch) -> list[str]:
    return [dialogue.id for dialogue in batch.dialogues]


def stopped(arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        run_recipe(arguments)
    message = str(caught.value)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


def replayed(folder: Path, *options: str) -> tuple[int, dict]:
    result = CliRunner().invoke(app, ["replay", str(folder), "--json", *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, json.loads(result.stdout)


def finite(weights: dict[str, Tensor]) -> bool:
    return all(bool(values.isfinite().all()) for values in weights.values())


# -- a loss that is not finite ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory, command) -> tuple[Path, dict[str, float]]:
    """Two epochs, interrupted between them, in which the divergence is NaN for a dialogue of each set."""
    output = tmp_path_factory.mktemp("spoiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ES4RBrain, "loss_terms", spoil("kl", "valid-1"))
        run_recipe(command(output, epochs=1, test_batch_size=1))
        return output, run_recipe(command(output, epochs=2, test_batch_size=1))


def test_the_batch_is_named_with_its_term_and_left_out(spoiled):
    output, _ = spoiled
    lines = [line for line in (output / "log.txt").read_text().splitlines() if " is left out, " in line]
    assert len(lines) == 2
    assert BAD in lines[0]
    assert "epoch 1, batch" in lines[0]
    assert "1 of 3 that may be: kl is nan" in lines[0]
    assert "2 of 3 that may be" in lines[1], "the count survives an interruption"
    assert "es4r replay" in lines[0]


def test_history_and_scores_count_it_and_hold_the_means_of_the_others(spoiled):
    output, scores = spoiled
    history = lines_of(output / "history.jsonl")
    assert [line["train_skipped_batches"] for line in history] == [1, 1]
    assert all(math.isfinite(line["train_loss"]) and math.isfinite(line["train_kl"]) for line in history)
    # With both weights at 1 the loss is the sum of its terms, whichever batches were left out.
    for line in history:
        assert line["train_loss"] == pytest.approx(line["train_cross_entropy"] + line["train_kl"], rel=1e-5)
    assert scores["train_skipped_batches"] == 2
    assert finite(load_file(output / "model" / "trained.safetensors"))


def test_the_kept_batch_is_data_alone(spoiled):
    kept = sorted((spoiled[0] / "nonfinite").iterdir())
    assert [folder.name.split("_")[0] for folder in kept] == ["epoch1", "epoch2"]
    names = {"batch.json", "model.yaml", "tensors.safetensors", "trained.safetensors"}
    assert {path.name for folder in kept for path in folder.iterdir()} == names


def test_a_replay_meets_what_training_met(spoiled):
    """From the same weights and random numbers every other term is the same bit for bit."""
    (folder, *_) = sorted((spoiled[0] / "nonfinite").iterdir())
    code, found = replayed(folder)
    assert code == 0, "the fault was in the test's own loss"
    assert BAD in found["dialogues"]
    assert found["then"]["terms"]["kl"] == "nan"
    assert found["now"]["terms"]["cross_entropy"] == found["then"]["seen"]["terms"]["cross_entropy"]
    assert found["now"]["finite"] is True


def test_a_replay_that_is_not_finite_says_where_and_fails(spoiled, monkeypatch):
    monkeypatch.setattr(ES4RBrain, "loss_terms", spoil("kl"))
    (folder, *_) = sorted((spoiled[0] / "nonfinite").iterdir())
    result = CliRunner().invoke(app, ["replay", str(folder)])
    assert result.exit_code == 1
    assert "now:  kl is nan, and everything that modules gave is finite" in result.stdout
    assert "understanding.downsampler" in result.stdout


def test_a_kept_batch_that_is_cut_short_is_refused_by_name(spoiled, tmp_path):
    (folder, *_) = sorted((spoiled[0] / "nonfinite").iterdir())
    broken = tmp_path / "kept"
    broken.mkdir()
    for path in folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    described = json.loads((folder / "batch.json").read_text())
    described["dialogues"] = described["dialogues"][:1]
    (broken / "batch.json").write_text(json.dumps(described))
    with pytest.raises(DialogueError, match="other turns than its tensors"):
        KeptBatch.read(broken)
    (broken / "tensors.safetensors").write_bytes(b"\xff" * 40)
    result = CliRunner().invoke(app, ["replay", str(broken)])
    assert result.exit_code == 1
    assert "tensors.safetensors: cannot be read" in result.stderr


# -- gradients and weights that are not -------------------------------------------------------------------------------


def test_a_step_whose_gradient_is_not_finite_changes_nothing(tmp_path, command, monkeypatch):
    """Neither weights nor the optimizer's averages nor the running statistics of the emotion head."""
    states, steps = [], []

    def state(brain) -> dict[str, Tensor]:
        averages = [value for kept in brain.optimizer.state.values() for value in kept.values()]
        numbered = {str(place): value.clone() for place, value in enumerate(averages)}
        return {**{name: value.clone() for name, value in brain.modules.state_dict().items()}, **numbered}

    def watch(brain, batch, *rest):
        before, count = state(brain), brain.optimizer_step
        loss = fit_batch(brain, batch, *rest)
        after = state(brain)
        changed = before.keys() != after.keys() or any(not torch.equal(before[name], after[name]) for name in before)
        states.append((BAD in ids(batch), changed))
        steps.append((BAD in ids(batch), brain.optimizer_step - count))
        return loss

    fit_batch = ES4RBrain.fit_batch
    monkeypatch.setattr(ES4RBrain, "fit_batch", watch)
    monkeypatch.setattr(ES4RBrain, "loss_terms", spoil_gradient)
    run_recipe(command(tmp_path, epochs=1, emotion_weight=1.0))
    assert sorted(states) == [(False, True), (False, True), (True, False)]
    assert sorted(steps) == [(False, 1), (False, 1), (True, 0)]
    (folder,) = (tmp_path / "nonfinite").iterdir()
    code, found = replayed(folder)
    assert code == 1, "the fault is still there"
    assert found["now"]["weight"] == found["then"]["seen"]["weight"] == "generation.fusion.attention.query.weight"
    broken = {name: group["gradients"] for name, group in found["now"]["groups"].items() if group["gradients"]}
    assert broken == {"generation.fusion": ["generation.fusion.attention.query.weight"]}
    assert math.isfinite(found["now"]["terms"]["emotion"])
    assert found["settings"]["emotions"] == ["high", "low"]


def test_one_bad_batch_of_several_costs_their_step_and_no_other(tmp_path, command, monkeypatch):
    """Three batches a step: an epoch has one, and the second epoch's holds no bad batch."""
    taken = []
    step, spoiled_terms = ES4RBrain.optimizers_step, spoil("cross_entropy")
    monkeypatch.setattr(ES4RBrain, "optimizers_step", lambda brain: (taken.append(brain.skipped.epoch), step(brain)))
    monkeypatch.setattr(
        ES4RBrain,
        "loss_terms",
        lambda brain, *rest: (spoiled_terms if brain.skipped.epoch == 1 else as_always)(brain, *rest),
    )
    run_recipe([*command(tmp_path), "--grad_accumulation_factor=3"])
    assert taken == [2]
    assert [line["train_skipped_batches"] for line in lines_of(tmp_path / "history.jsonl")] == [1, 0]


def test_training_stops_when_the_budget_is_spent_and_names_what_it_kept(tmp_path, command, monkeypatch):
    monkeypatch.setattr(ES4RBrain, "loss_terms", spoil("kl"))
    message = stopped([*command(tmp_path), "--nonfinite_patience=0"])
    (folder,) = (tmp_path / "nonfinite").iterdir()
    assert f"{folder}: 1 batches were not finite, and 0 may be; the last: kl is nan" in message
    assert "raise --nonfinite_patience" in message


def test_a_learning_rate_that_blows_up_stops_training(tmp_path, command):
    """The weights are finite still, and nothing computed with them is."""
    message = stopped(command(tmp_path, lr=1e30, batch_size=1))
    kept = sorted((tmp_path / "nonfinite").iterdir())
    assert len(kept) == 4
    assert all(str(folder) in message for folder in kept)
    assert "understanding." in message, "where the first value is not finite"
    code, found = replayed(kept[0])
    assert code == 1
    assert found["now"] == {key: value for key, value in found["then"].items() if key != "seen"}


def test_a_weight_that_is_not_finite_stops_training_at_once(tmp_path, command, monkeypatch):
    step = ES4RBrain.optimizers_step

    def overflow(brain):
        step(brain)
        if brain.optimizer_step == 2:
            brain.pipeline.understanding.downsampler.norm.weight.data[3] = math.inf

    monkeypatch.setattr(ES4RBrain, "optimizers_step", overflow)
    message = stopped(command(tmp_path))
    assert "1 trained weights are not finite themselves, understanding.downsampler.norm.weight first" in message
    assert len(list((tmp_path / "nonfinite").iterdir())) == 1, "nothing is left to try"


def test_a_step_that_overflows_stops_training_before_a_checkpoint_holds_it(tmp_path, command, monkeypatch):
    step = torch.optim.AdamW.step

    def overflow(optimizer, *arguments):
        step(optimizer, *arguments)
        if next(iter(optimizer.state.values()))["step"] == 2:
            next(iter(optimizer.state)).data.flatten()[0] = math.inf

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    message = stopped(command(tmp_path))
    assert "the step after batch 2 of epoch 1 left 1 trained weights not finite" in message
    checkpoints = list((tmp_path / "checkpoints").glob("CKPT*/pipeline*"))
    assert checkpoints
    assert all(finite(load_file(checkpoint)) for checkpoint in checkpoints)
    (folder,) = (tmp_path / "nonfinite").iterdir()
    assert replayed(folder)[1]["now"]["cause"].startswith("1 trained weights are not finite themselves")


def test_stored_features_that_went_wrong_are_kept_and_traced_to_what_they_break(tmp_path, command, monkeypatch):
    """Finite, and so large that their mean is not."""
    load = feature_store.load_features
    monkeypatch.setattr(feature_store, "load_features", lambda path: 1e38 * load(path))
    store = tmp_path / "features"
    message = stopped([*command(tmp_path / "run", feature_store=store), "--nonfinite_patience=0"])
    (folder,) = (tmp_path / "run" / "nonfinite").iterdir()
    assert str(folder) in message
    code, found = replayed(folder)
    assert code == 1
    assert found["now"]["forward"].split()[-2].startswith("understanding.")


def test_float16_whose_scale_is_too_large_is_scaled_anew_and_no_batch_is_lost(tmp_path, command, monkeypatch):
    """On a processor in float32, with a scale that even float32 is too small for."""
    brains, as_before = [], ES4RBrain.on_fit_start

    def begin(brain):
        as_before(brain)
        brain.scaler = torch.GradScaler("cpu", init_scale=2.0**126)
        brains.append(brain)

    monkeypatch.setattr(ES4RBrain, "on_fit_start", begin)
    scores = run_recipe(command(tmp_path, batch_size=1, epochs=1))
    halved = 126 - int(math.log2(brains[0].scaler.get_scale()))
    assert 0 < halved < 6
    assert brains[0].optimizer_step == 6 - halved, "a step is spent on each"
    assert scores["train_skipped_batches"] == 0
    assert not (tmp_path / "nonfinite").exists()


# -- several processes ------------------------------------------------------------------------------------------------


def spoil_here() -> None:
    ES4RBrain.loss_terms = spoil("kl")


def test_all_processes_leave_a_step_out_together_and_the_one_whose_batch_it_is_keeps_it(tmp_path, command):
    output = tmp_path / "run"
    run = forked.start(command(output, batch_size=1), output, processes=2, prepare=spoil_here)
    assert run.codes() == [0, 0], (tmp_path / "run.0.txt").read_text()[-2000:]
    assert [line["train_skipped_batches"] for line in lines_of(output / "history.jsonl")] == [1, 1]
    kept = [KeptBatch.read(folder) for folder in sorted((output / "nonfinite").iterdir())]
    assert [(one.epoch, one.ids) for one in kept] == [(1, [BAD]), (2, [BAD])]
    printed = "".join((tmp_path / f"run.{rank}.txt").read_text() for rank in (0, 1))
    assert printed.count("is left out, 2 of 3 that may be") == 2, "each process has counted the other's too"
    assert printed.count("the batch of another process is not finite") == 2
    assert finite(load_file(output / "model" / "trained.safetensors"))


# -- validation -------------------------------------------------------------------------------------------------------


def test_a_validation_loss_that_is_not_finite_is_named_and_has_no_part_in_the_mean(spoiled):
    output, scores = spoiled
    for line in lines_of(output / "history.jsonl"):
        assert line["nonfinite_losses"] == 1
        assert line["valid_loss"] == pytest.approx(line["cross_entropy"] + line["kl"], rel=1e-5)
    assert "nonfinite_losses" not in scores, "those of the test were finite"
    log = (output / "log.txt").read_text()
    assert "VALID: a loss that is not finite is left out" in log
    assert "of valid-1" in log


def test_a_validation_without_a_finite_loss_is_no_best_checkpoint(tmp_path, command, monkeypatch):
    monkeypatch.setattr(ES4RBrain, "loss_terms", spoil("kl", "valid-1"))
    assert "VALID of epoch 1: no batch was finite" in stopped(command(tmp_path, epochs=1, test_batch_size=3))
