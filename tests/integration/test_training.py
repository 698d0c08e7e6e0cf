"""A recipe trains from start to export."""

from __future__ import annotations

import json
import math

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from tones import BATCH, EPOCHS, REPLIES, STEPS, lines_of

from es4r_toolkit.brain import ES4RBrain
from es4r_toolkit.hparams import build, localize, refuse_foreign_tags
from es4r_toolkit.stages.understanding import EmpatheticUnderstanding
from es4r_toolkit.training import run_recipe

# -- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_answers_the_test_set_and_scores_it(trained):
    output, scores = trained
    predictions = lines_of(output / "predictions.jsonl")
    assert [line["id"] for line in predictions] == ["test-0", "test-1"]
    for index, line in enumerate(predictions):
        assert line["reference"] == list(REPLIES.values())[index]
        assert isinstance(line["response"], str)
        assert line["slots"] == {"mood": list(REPLIES)[index]}
        assert line["strategy"] in ("comfort", "neutral", "encourage")
        assert len(line["energies"]) == 1 + 2 * index
        assert min(line["energies"]) > 0
    assert json.loads((output / "scores.json").read_text()) == scores
    assert {"loss", "cross_entropy", "kl", "bleu4", "rougeL", "distinct1", "mood"} <= set(scores)
    assert all(math.isfinite(score) for score in scores.values())


def test_history_has_a_line_for_each_epoch_and_the_loss_falls(trained):
    history = lines_of(trained[0] / "history.jsonl")
    assert [line["epoch"] for line in history] == [1, 2]
    assert history[1]["train_loss"] < history[0]["train_loss"]
    assert {"valid_loss", "train_cross_entropy", "train_kl", "mood", "seconds"} <= set(history[0])


def test_the_exported_model_stands_alone_and_holds_what_was_trained(trained):
    folder = trained[0] / "model"
    text = (folder / "model.yaml").read_text()
    refuse_foreign_tags(text, folder / "model.yaml")
    settings = YAML().load(text)
    assert (settings["encoder"]["source"], settings["llm"]["source"]) == ("@model/encoder", "@model/llm")
    pipeline = build(localize(text, folder))["pipeline"]
    before = {name: weight.clone() for name, weight in pipeline.trained_state().items()}
    pipeline.load_trained(folder / "trained.safetensors")
    assert any(not torch.equal(before[name], weight) for name, weight in pipeline.trained_state().items())


def test_the_settings_of_a_run_are_kept_beside_it(trained):
    kept = YAML().load((trained[0] / "hyperparams.yaml").read_text())
    assert (kept["epochs"], kept["batch_size"]) == (EPOCHS, BATCH)


def test_the_papers_preset_trains_too(tmp_path, command):
    scores = run_recipe(command(tmp_path, preset="paper", epochs=1))
    assert math.isfinite(scores["loss"])
    assert [line["epoch"] for line in lines_of(tmp_path / "history.jsonl")] == [1]
    weights = load_file(tmp_path / "model" / "trained.safetensors")
    assert not any("norm" in name and "dual_attention" in name for name in weights)
    settings = YAML().load((tmp_path / "model" / "model.yaml").read_text())
    assert list(settings["context"]) == ["fused"]


def test_augmentation_is_heard_in_training_and_nowhere_else(tmp_path, command, monkeypatch):
    """What is validated and tested is the recording itself."""
    heard = {True: set(), False: set()}
    features = EmpatheticUnderstanding.features

    def watch(self, waveforms, wav_lens):
        heard[self.training] |= set((wav_lens * waveforms.shape[1]).round().int().tolist())
        return features(self, waveforms, wav_lens)

    monkeypatch.setattr(EmpatheticUnderstanding, "features", watch)
    run_recipe(command(tmp_path, epochs=1, speeds="[80]"))
    # Turns of 0.2, 0.25 and 0.3 s, which take 1/0.8 as long at 80 % of the speed.
    assert heard[False] <= {3200, 4000, 4800}
    assert heard[True] <= {4000, 5000, 6000}
    assert heard[True] & {5000, 6000}


@pytest.mark.parametrize("placement", ["replace", "inject"])
def test_either_placement_trains(tmp_path, command, placement):
    scores = run_recipe(command(tmp_path, placement=placement, epochs=1))
    assert math.isfinite(scores["loss"])
    weights = load_file(tmp_path / "model" / "trained.safetensors")
    assert ("understanding.injection.gate" in weights) is (placement == "inject")


def test_without_the_divergence_the_text_path_is_not_run(tmp_path, command):
    assert "kl" not in run_recipe(command(tmp_path, kl_weight=0, epochs=1))


def test_an_emotion_head_learns_the_labels_of_the_data_and_is_not_exported(tmp_path, command, trained):
    scores = run_recipe(command(tmp_path, emotion_weight=1, epochs=6))
    history = lines_of(tmp_path / "history.jsonl")
    assert history[-1]["emotion"] < 0.5 * history[0]["emotion"]
    assert "train_emotion" in history[0]
    assert scores["emotion_accuracy"] == 1.0
    assert "emotion" not in trained[1]
    first, second = (load_file(folder / "model" / "trained.safetensors") for folder in (trained[0], tmp_path))
    assert first.keys() == second.keys()
    (checkpoint, *_) = (tmp_path / "checkpoints").glob("CKPT*")
    assert (checkpoint / "emotion_head.ckpt").is_file()


def test_an_emotion_head_without_labels_is_refused(tmp_path, command, tones):
    lines = [{**line, "speaker_emotion": "low"} for line in lines_of(tones / "train.jsonl")]
    for line in lines:
        for turn in line["dialogue_history"]:
            turn["audio_path"] = str(tones / turn["audio_path"])
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    arguments = command(tmp_path / "out", emotion_weight=0.1, train_manifest=tmp_path / "train.jsonl")
    with pytest.raises(SystemExit, match="speaker turns have 1 different emotions; label them"):
        run_recipe(arguments)
    with pytest.raises(SystemExit, match="the context holds no speech"):
        run_recipe(command(tmp_path / "deaf", emotion_weight=0.1, context="[text]", lora_scope="context"))


@pytest.mark.parametrize(
    ("losses", "fault"),
    [
        ("{cross_entropy: 0, kl: 0}", "losses: are all off"),
        ("{cross_entropy: -1, kl: 0}", "losses.cross_entropy: is -1"),
        ("{cross_entropy: 1, kl: 0, emotions: 1}", "has no term 'emotions'"),
    ],
)
def test_losses_that_make_no_sense_are_refused(tmp_path, command, losses, fault):
    with pytest.raises(SystemExit, match=fault):
        run_recipe(command(tmp_path, losses=losses))


def test_the_same_seed_gives_the_same_model(tmp_path, command, trained):
    run_recipe(command(tmp_path))
    first, second = (load_file(folder / "model" / "trained.safetensors") for folder in (trained[0], tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_learning_rate_warms_up_from_the_first_step_and_cools_down(tmp_path, command, monkeypatch):
    rates = []
    as_always = ES4RBrain.optimizers_step

    def record(brain):
        rates.append(brain.optimizer.param_groups[0]["lr"])
        as_always(brain)

    monkeypatch.setattr(ES4RBrain, "optimizers_step", record)
    run_recipe(command(tmp_path, lr=0.006, schedule="{warmup: 0.5, cooldown: 0.34}"))
    assert len(rates) == STEPS
    assert rates[0] == min(rates[:4]), f"the first steps ran at {rates[:4]}"
    assert max(rates) == pytest.approx(0.006)
    assert 0 < rates[-1] < max(rates), "a last step at no rate is wasted"


def test_the_schedule_counts_optimizer_steps_where_gradients_are_gathered(tmp_path, command, monkeypatch):
    """With three batches a step, two epochs are two steps, and the schedule ends with them."""
    planned = []
    as_always = ES4RBrain.optimizers_step

    def record(brain):
        planned.append(brain.hparams.scheduler.total_steps)
        as_always(brain)

    monkeypatch.setattr(ES4RBrain, "optimizers_step", record)
    run_recipe([*command(tmp_path), "--grad_accumulation_factor=3"])
    assert len(planned) == 2
    assert planned[0] in (2, 3), f"{planned[0]} steps are planned for 2"


def test_only_the_best_and_the_newest_checkpoints_are_kept(trained):
    kept = [YAML().load(path) for path in (trained[0] / "checkpoints").glob("CKPT*/CKPT.yaml")]
    ends = [meta for meta in kept if "loss" in meta]
    assert {meta["epoch"] for meta in ends} >= {EPOCHS}
    assert len(kept) <= 3


def test_a_finished_run_started_again_trains_no_more_and_tests_again(trained, tmp_path, command, monkeypatch):
    output, scores = trained
    monkeypatch.setattr(ES4RBrain, "fit_batch", lambda *_: pytest.fail("it trains again"))
    assert run_recipe(command(output)) == pytest.approx(scores)
    assert [line["epoch"] for line in lines_of(output / "history.jsonl")] == [1, 2]
