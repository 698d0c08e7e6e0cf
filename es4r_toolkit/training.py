"""run_recipe: what every recipe's train.py calls."""

from __future__ import annotations

import errno
import logging
import math
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from safetensors import SafetensorError
from speechbrain.utils.distributed import infer_device, main_process_only, run_on_main
from torch.utils.data import DataLoader
from tqdm import tqdm

from es4r_toolkit.brain import ES4RBrain
from es4r_toolkit.checkpointing import Progress, RandomStates, WholeCheckpointer
from es4r_toolkit.data.dataset import DynamicItemDataset, collate, dialogue_dataset, like_lengths, shuffled
from es4r_toolkit.data.feature_store import FeatureStore
from es4r_toolkit.data.manifest import ManifestReport, read_manifest
from es4r_toolkit.data.order import SharedBatches
from es4r_toolkit.data.recordings import Part
from es4r_toolkit.data.representations import write_representations
from es4r_toolkit.data.responses import write_json, write_predictions, write_text
from es4r_toolkit.data.tables import TableOptions
from es4r_toolkit.data.transcripts import TRANSCRIPTS, with_transcripts, write_down
from es4r_toolkit.dialogue import Dialogue
from es4r_toolkit.errors import ConfigError, DialogueError, ES4RError
from es4r_toolkit.hparams import MODEL_FOLDER, build, compose, model_file, plain
from es4r_toolkit.lobes import EmotionHead
from es4r_toolkit.metrics.slots import SlotTable
from es4r_toolkit.pipeline import EmpathyPipeline
from es4r_toolkit.planning import dry_run, render
from es4r_toolkit.processes import place
from es4r_toolkit.protocols import Recognizer

logger = logging.getLogger(__name__)
Step = Callable[..., Any]
DRY_RUN = "--dry_run"
# In the words of the system, which are all that some writers pass on.
FULL = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
LOSS_TERMS = ("cross_entropy", "kl", "emotion")


def run_recipe(argv: Sequence[str], steps: Sequence[Step] = ()) -> dict[str, float]:
    """Prepare, train, test and export one model.

    Arguments
    ---------
    argv : sequence of str
        A train YAML and overrides, ``--key=value``. Keys of the model file it
        includes may be given too, and SpeechBrain's run options (``--device``,
        ``--precision``, ...). With ``--dry_run``, nothing is loaded, made or
        trained: what would be is printed.
    steps : sequence of callable
        What to do first (prepare a corpus, pre-train backbones). Each is
        called with the YAML section of its own name, and returns at once
        where its work is done; ``--name=False`` leaves one out.

    Returns
    -------
    dict of str to float
        Scores on the test set; none of a dry run.
    """
    try:
        if DRY_RUN in argv:
            path, _, changes = sb.parse_arguments([argument for argument in argv if argument != DRY_RUN])
            print(render(dry_run(path, _values(changes))))
            return {}
        return _run(argv, steps)
    except ES4RError as fault:
        sys.exit(f"error: {fault}")
    except (OSError, SafetensorError) as fault:
        full = next((reason for reason in FULL if reason in str(fault)), None)
        if full is None:
            raise
        where = getattr(fault, "filename", None) or "output_folder"
        sys.exit(f"error: {where}: {full}; make room, and start the same command again")


def _run(argv: Sequence[str], steps: Sequence[Step]) -> dict[str, float]:
    path, run_options, changes = sb.parse_arguments(list(argv))
    overrides = _values(changes)
    text = compose(path, overrides)
    values = plain(text)
    device = run_options.get("device") or infer_device()
    run_options = _for_processes(run_options, device, values)
    sb.utils.distributed.ddp_init_group(run_options)
    for step in steps:
        if step.__name__ not in values:
            raise ConfigError(path, f"has no section {step.__name__}", "add one with the arguments of that step")
        if values[step.__name__] is False:
            logger.info("%s: left out, as asked", step.__name__)
            continue
        run_on_main(step, kwargs=values[step.__name__])
    # Before the modules are built, so that their first weights follow from the seed too.
    _seed(values["seed"])
    hparams = build(text)
    rank, processes = place()
    if rank > 0:
        # Other dropout than the first process draws, for other dialogues.
        _seed(values["seed"] + rank)
    output = Path(hparams["output_folder"])
    sb.create_experiment_directory(output, overrides=overrides)
    run_on_main(write_text, args=[output / "hyperparams.yaml", text])
    pipeline: EmpathyPipeline = hparams["model"]["pipeline"]
    if hparams.get("start_from"):
        pipeline.start_from(hparams["start_from"])
    table = TableOptions(**(hparams.get("table") or {}))
    reports = {
        name: _read(hparams[f"{name}_manifest"], name, pipeline.recognizer is None, table)
        for name in ("train", "valid", "test")
    }
    sets = {name: report.dialogues for name, report in reports.items()}
    if pipeline.recognizer is not None:
        sets = _with_transcripts(sets, pipeline.to(device).recognizer, output / TRANSCRIPTS)
    hparams["losses"] = _whole_losses(hparams["losses"])
    modules: dict[str, torch.nn.Module] = {"pipeline": pipeline}
    if hparams["losses"].get("emotion", 0) > 0:
        modules["emotion_head"] = _emotion_head(pipeline, sets)
    features = _features(hparams, sets, pipeline, device)
    datasets = {
        name: dialogue_dataset(dialogues, pipeline.sample_rate, features.get(name)) for name, dialogues in sets.items()
    }
    batches = _batches(hparams, datasets["train"], reports["train"], rank, processes)
    brain = _brain(hparams, run_options, modules, batches)
    loading = {
        "collate_fn": collate,
        "num_workers": hparams["num_workers"],
        # A loader draws a seed whenever it starts: from a generator of its own, so that dropout's numbers stay in step.
        "generator": torch.Generator(),
    }
    test_loading = {**loading, "batch_size": hparams["test_batch_size"]}
    brain.fit(
        hparams["epoch_counter"],
        # SpeechBrain's own loader would share the batches out otherwise, and count them by process.
        DataLoader(datasets["train"], batch_sampler=batches, **loading),
        datasets["valid"],
        valid_loader_kwargs=test_loading,
    )
    # The newest weights, which the schedule has cooled down; those of the lowest validation loss are kept beside them.
    run_on_main(export_model, args=[pipeline, path, overrides, output / "model"])
    brain.evaluate(datasets["test"], test_loader_kwargs=test_loading)
    run_on_main(_write_results, args=[brain, output])
    return brain.test_stats


def export_model(pipeline: EmpathyPipeline, path: str | Path, overrides: dict[str, Any], folder: Path) -> None:
    """Write a folder that ``EmpathyResponder.from_hparams`` and ``es4r respond --model`` read.

    It holds the flat model YAML and the trained weights. Backbones that the
    recipe itself made (``bundle`` in the train YAML) are copied in where the
    model has them; others stay where their source says.
    """
    values, sources = plain(compose(path, overrides)), {}
    folder.mkdir(parents=True, exist_ok=True)
    for key, source in values.get("bundle", {}).items():
        name = key.removesuffix("_source")
        # Of those that somebody else made, the name or the place is enough.
        if not Path(source).is_dir() or values["model"][name]["source"] != source:
            continue
        shutil.copytree(source, folder / name, dirs_exist_ok=True, copy_function=_copy_whole)
        sources[key] = f"{MODEL_FOLDER}{name}"
    system, asked = model_file(path, overrides.get("model"))
    asked |= {key: value for key, value in overrides.items() if key != "model"}
    # What the train YAML alone knows is passed over.
    write_text(folder / "model.yaml", compose(system, {**asked, **sources}, strict=False))
    beside = folder / "trained.safetensors.part"
    pipeline.save_trained(beside)
    os.replace(beside, folder / "trained.safetensors")
    logger.info("the trained model is in %s", folder)


def _copy_whole(source: str, target: str) -> None:
    beside = f"{target}.part"
    shutil.copy2(source, beside)
    os.replace(beside, target)


def _whole_losses(losses: dict[str, Any]) -> dict[str, Any]:
    """The losses with what they leave out: terms are off, the divergence is the paper's."""
    weights = {name: losses.get(name, 0) for name in LOSS_TERMS}
    unknown = sorted(set(losses) - {*LOSS_TERMS, "temperature", "direction"})
    if unknown:
        raise ConfigError("losses", f"has no term {unknown[0]!r}", f"the terms are {', '.join(LOSS_TERMS)}")
    for name, weight in weights.items():
        if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ConfigError(f"losses.{name}", f"is {weight!r}", "give a number that is not negative; 0 is off")
    if not any(weights.values()):
        raise ConfigError("losses", "are all off: nothing to learn", "give one a weight")
    return {"temperature": 2.0, "direction": "speech_text", **losses, **weights}


def _emotion_head(pipeline: EmpathyPipeline, sets: dict[str, list[Dialogue]]) -> EmotionHead:
    """A head for the emotions that the training set's speaker turns are labelled with."""
    counts = {
        name: Counter(turn.emotion for one in dialogues for turn in one.history if turn.is_speaker and turn.emotion)
        for name, dialogues in sets.items()
    }
    labels = sorted(counts["train"])
    if not pipeline.generation.hears:
        raise ConfigError("losses.emotion", "is on, and the context holds no speech", "put fused into the context")
    if len(labels) < 2:
        seen = f"the training set's speaker turns have {len(labels)} different emotions"
        raise ConfigError("losses.emotion", f"is on, and {seen}", "label them in the manifest, or set the weight to 0")
    for name, found in counts.items():
        strange = {label: number for label, number in found.items() if label not in labels}
        if strange:
            logger.warning("%s: emotions that training never has are not scored: %s", name, strange)
    logger.info("emotion head: %s", dict(sorted(counts["train"].items())))
    return EmotionHead(pipeline.understanding.encoder.n_mels, labels)


def _features(
    hparams: dict[str, Any], sets: dict[str, list[Dialogue]], pipeline: EmpathyPipeline, device: str
) -> dict[str, dict[Part, Path]]:
    """Where the features of the training and validation sets lie, if a store is asked for; the test needs sound."""
    if not hparams.get("feature_store") or not pipeline.generation.hears:
        return {}
    augmentation = hparams.get("augmentation")
    if augmentation is not None and getattr(augmentation, "speeds", None) != [100]:
        problem = "holds what recordings are, and augmentation changes them"
        raise ConfigError("feature_store", problem, "leave one of them off, such as --speeds=[100]")
    store = FeatureStore(hparams["feature_store"], pipeline.to(device).understanding.encoder)
    heard = {name: sets[name] for name in ("train", "valid")}
    every = [one for dialogues in heard.values() for one in dialogues]
    bar = partial(tqdm, desc="features")
    options = {"device": device, "workers": hparams["num_workers"], "progress": bar}
    run_on_main(store.fill, args=[every], kwargs=options)
    return {name: store.paths(dialogues) for name, dialogues in heard.items()}


def _batches(
    hparams: dict[str, Any], dataset: DynamicItemDataset, report: ManifestReport, rank: int, processes: int
) -> SharedBatches:
    """Training batches: of so many dialogues, or of so many seconds of dialogues of like length."""
    if not hparams.get("max_batch_seconds"):
        return SharedBatches(shuffled(dataset), hparams["batch_size"], rank, processes)
    lengths = [report.seconds(dialogue) for dialogue in report.dialogues]
    most, buckets = hparams["max_batch_seconds"], hparams.get("batch_buckets", 10)
    order = like_lengths(dataset, lengths, most, buckets, hparams["seed"])
    return SharedBatches(order, None, rank, processes)


def _brain(
    hparams: dict[str, Any], run_options: Any, modules: dict[str, torch.nn.Module], batches: SharedBatches
) -> ES4RBrain:
    pipeline: EmpathyPipeline = modules["pipeline"]
    if not pipeline.generation.hears and pipeline.generation.lora_scope == "speech":
        raise ConfigError("lora_scope", "is speech, and the context holds none: nothing to train", "say context")
    gathered = hparams.get("grad_accumulation_factor", run_options.get("grad_accumulation_factor", 1))
    steps_per_epoch = max(1, len(batches) // gathered)
    steps = steps_per_epoch * hparams["epoch_counter"].limit
    shares = hparams["schedule"]
    hparams["scheduler"] = hparams["scheduler"](
        warmup=max(1, round(shares["warmup"] * steps)),
        cooldown=max(1, round(shares["cooldown"] * steps)),
        # The cool-down would reach zero in its last step, and waste it.
        total_steps=steps + 1,
    )
    checkpointer = WholeCheckpointer(Path(hparams["output_folder"]) / "checkpoints")
    # The scheduler has no state but its plan, which may change between runs: the optimizer's own count drives it.
    checkpointer.add_recoverable("epoch_counter", hparams["epoch_counter"])
    checkpointer.add_recoverable("random_states", RandomStates(), optional_load=True)
    checkpointer.add_recoverable(
        "pipeline",
        pipeline,
        custom_save_hook=main_process_only(lambda module, path: module.save_trained(path)),
        custom_load_hook=lambda module, path, *_: module.load_trained(path),
    )
    if "emotion_head" in modules:
        checkpointer.add_recoverable("emotion_head", modules["emotion_head"])
    brain = ES4RBrain(modules, hparams["optimizer"], hparams, run_options, checkpointer)
    # So that each epoch draws its own batches, the same after a restart.
    brain.train_sampler = batches
    checkpointer.add_recoverable("progress", Progress(brain, batches, steps_per_epoch), optional_load=True)
    slots = Path(hparams["slots"]) if hparams.get("slots") else None
    if slots is not None:
        brain.slots = SlotTable.read(slots)
    return brain


def _for_processes(run_options: Any, device: str, values: dict[str, Any]) -> Any:
    """SpeechBrain's options for several processes, where neither the command line nor the YAML says otherwise."""
    # A weight that nothing runs through would end the second step; it costs a walk over the graph.
    wanted = {"find_unused_parameters": True}
    if device == "cpu":
        # SpeechBrain takes nccl, which is for GPUs alone.
        wanted["distributed_backend"] = "gloo"
    new = {name: value for name, value in wanted.items() if name not in {*run_options.overridden_args, *values}}
    return replace(run_options, **new, overridden_args=run_options.overridden_args | set(new))


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _values(changes: str) -> dict[str, Any]:
    """What the command line overrides, as SpeechBrain hands it over: lines of key: value."""
    try:
        values = YAML(typ="safe").load(changes) or {}
    except YAMLError as fault:
        reason = " ".join(str(fault).split())[:200]
        raise ConfigError("command line", f"cannot be read ({reason})", "give each --key=value once") from fault
    if not isinstance(values, dict) or None in values.values():
        raise ConfigError("command line", f"{changes.strip()!r} is not --key=value", "give each key a value")
    return values


def _with_transcripts(sets: dict[str, list[Dialogue]], recognizer: Recognizer, path: Path) -> dict[str, list[Dialogue]]:
    """The sets, with the words of turns that came without; heard once, by the first process."""
    every = [one for dialogues in sets.values() for one in dialogues]
    bar = partial(tqdm, desc=f"{recognizer.name} writes down", unit="recording")
    run_on_main(write_down, args=[every, recognizer, path, bar])
    return {name: with_transcripts(dialogues, recognizer, path) for name, dialogues in sets.items()}


def _read(manifest: str, split: str, need_text: bool, table: TableOptions) -> ManifestReport:
    report = read_manifest(manifest, need_response=True, need_text=need_text, split=split, table=table)
    for rejection in report.rejected:
        logger.warning("left out: %s", rejection)
    if report.rejected:
        logger.warning("%s: %d dialogues left out, %d kept", manifest, len(report.rejected), len(report.dialogues))
    if not report.dialogues:
        elsewhere = f" of the split {split}, and {report.elsewhere} of others" if report.elsewhere else ""
        raise DialogueError(manifest, f"holds no usable dialogue{elsewhere}", "run `es4r validate` on it")
    return report


def _write_results(brain: ES4RBrain, output: Path) -> None:
    write_predictions(output, brain.predictions)
    table = getattr(brain.hparams, "slots", None)
    if table:
        # Where es4r evaluate looks for it.
        shutil.copy(table, output / "slots.json")
    write_json(output / "scores.json", brain.test_stats)
    if brain.representations:
        write_representations(output, brain.representations)
