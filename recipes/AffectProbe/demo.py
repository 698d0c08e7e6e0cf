"""The whole path on the embedded default: speak a corpus, train, answer held-out dialogues, write a report.

Run from the project's root: python recipes/AffectProbe/demo.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from twins import speak_twins

from es4r_toolkit.data.audio import load_turn, save
from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.data.records import read_lines
from es4r_toolkit.data.representations import REPRESENTATIONS, read_representations
from es4r_toolkit.data.responses import write_json
from es4r_toolkit.dialogue import Dialogue
from es4r_toolkit.hparams import plain
from es4r_toolkit.inference import EmpathyResponder, Response
from es4r_toolkit.metrics.slots import SlotTable, chance
from es4r_toolkit.report import AnsweredDialogue, AnsweredTurn, DemoReport, EnergyPath, write_report

RECIPE = Path(__file__).parent
TRAIN, HPARAMS = RECIPE / "train.py", RECIPE / "hparams" / "train.yaml"
SLOTS = ("topic", "affect", "trend")
# Less of everything than hparams/train.yaml, so that the whole ends in minutes.
SMALL = {"--level": "easy", "--dialogues": "1300", "--epochs": "9"}
# Text alone: the same language model and data; LoRA acts on the text, where the others have it on speech.
TEXT_ONLY = {"--context": "[text]", "--lora_scope": "context", "--epochs": "2"}
SHOWN = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit status."""
    options = _options(arguments)
    started = time.perf_counter()
    folder, runs = Path(options.output), {}
    asked = dict(option.partition("=")[::2] for option in options.overrides)
    places = {"--data_folder": folder / "data", "--backbones": folder / "backbones"}
    for name, fixed in (("plus", {}), ("text_only", TEXT_ONLY)):
        print(f"\n== {name}", flush=True)
        runs[name] = folder / name
        overrides = {**SMALL, **places, **asked, **fixed, "--output_folder": runs[name]}
        given = [f"{key}={value}" if value else key for key, value in overrides.items()]
        status = subprocess.run([sys.executable, TRAIN, HPARAMS, *given], check=False).returncode
        if status:
            return status
    values = plain((runs["plus"] / "hyperparams.yaml").read_text(encoding="utf-8"))
    data = Path(values["data_folder"])
    table = SlotTable.read(data / "slots.json")
    tested = read_manifest(data / "test.jsonl").dialogues
    twins = speak_twins(folder / "twins", values["corpus"], values["level"], values["seed"])
    answered = _answer(runs["plus"] / "model", [*_choose(tested), *twins], table, folder)
    turns, _ = read_representations(runs["plus"] / REPRESENTATIONS)
    metrics = {name: _scores(run) for name, run in runs.items()}
    metrics["chance"] = chance(table) | {
        "trend_from_last_affect": _read_json(data / "corpus.json")["trend_from_last_affect"]
    }
    metrics["seconds"] = round(time.perf_counter() - started, 1)
    write_json(folder / "metrics.json", metrics)
    report = DemoReport(
        title="ES4R Toolkit: a demonstration on AffectProbe",
        summary=metrics,
        histories={name: _history(run) for name, run in runs.items()},
        dialogues=answered[: len(answered) - len(twins)],
        twins=answered[len(answered) - len(twins) :],
        energy_paths=_energy_paths(runs["plus"], tested, values["model"]["preset"]["strategy_turns"]),
        representations=turns,
        confusion={slot: _confusion(runs["plus"], table, slot) for slot in ("affect", "trend")},
        notes=_notes(data),
    )
    page = write_report(folder / "report.html", report)
    _print_table(metrics)
    print(f"\nreport: {page.resolve()}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train ES4R on AffectProbe and answer held-out dialogues in text and speech.",
        epilog="example: python recipes/AffectProbe/demo.py --output results/demo -- --epochs=2",
    )
    parser.add_argument("--output", default="results/demo", help="folder for runs, metrics.json and report.html")
    parser.add_argument(
        "overrides",
        nargs="*",
        help="overrides of hparams/train.yaml behind --, such as --level=standard; the text-only run keeps its epochs",
    )
    return parser.parse_args(arguments)


def _answer(model: Path, dialogues: Sequence[Dialogue], table: SlotTable, folder: Path) -> list[AnsweredDialogue]:
    """Answer some dialogues with the exported model, as es4r respond would."""
    responder = EmpathyResponder.from_hparams(model)
    answered = []
    (folder / "replies").mkdir(parents=True, exist_ok=True)
    for dialogue in dialogues:
        response = responder.respond(dialogue, explained=True)
        save(folder / "replies" / f"{dialogue.id}.wav", response.waveform, response.sample_rate)
        answered.append(_shown(responder, dialogue, response, table))
    return answered


def _choose(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """The first dialogue of each trend."""
    chosen: dict[str, Dialogue] = {}
    for dialogue in dialogues:
        chosen.setdefault(dialogue.slots["trend"], dialogue)
    return list(chosen.values())[:SHOWN]


def _shown(responder: EmpathyResponder, dialogue: Dialogue, response: Response, table: SlotTable) -> AnsweredDialogue:
    pipeline, plan, why = responder.pipeline, response.plan, response.explanation
    rate = pipeline.sample_rate
    return AnsweredDialogue(
        id=dialogue.id,
        turns=[
            AnsweredTurn(turn.role, turn.text, load_turn(turn, rate), rate, energy, turn.emotion, weight)
            for turn, energy, weight in zip(dialogue.history, plan.energies, plan.style_weights)
        ],
        reply_text=response.text,
        reply_waveform=response.waveform,
        reply_sample_rate=response.sample_rate,
        reference=dialogue.response.text,
        slots=dialogue.slots,
        predicted_slots=table.predicted(response.text),
        strategy=plan.strategy.name,
        strategy_weights=plan.strategy.weights,
        energy_change=plan.strategy.relative_change,
        prosody=vars(plan.strategy.prosody),
        timings=response.timings,
        attention=why.attention,
        tokens=why.tokens,
        turn_of_token=why.turn_of_token,
        turn_of_position=why.turn_of_position,
        strategy_turns=pipeline.synthesis.strategy.turns,
    )


def _scores(run: Path) -> dict[str, float]:
    stats = _read_json(run / "scores.json")
    count = len((run / "predictions.jsonl").read_text(encoding="utf-8").splitlines())
    return {name: round(stats[name], 4) for name in (*SLOTS, "bleu4")} | {"count": count}


def _confusion(run: Path, table: SlotTable, slot: str) -> tuple[list[str], list[list[int]]]:
    labels = list(table.phrases[slot])
    counts = [[0] * (len(labels) + 1) for _ in labels]
    for line in read_lines(run / "predictions.jsonl"):
        said = table.predicted(line["response"])[slot]
        counts[labels.index(line["slots"][slot])][labels.index(said) if said else -1] += 1
    return labels, counts


def _energy_paths(run: Path, dialogues: Sequence[Dialogue], turns: str) -> list[EnergyPath]:
    """Energies of the turns of each test dialogue that count, all or the speaker's, with what was chosen by them."""
    speaks = {one.id: [turns == "all" or turn.is_speaker for turn in one.history] for one in dialogues}
    return [
        EnergyPath(line["strategy"], [energy for energy, own in zip(line["energies"], speaks[line["id"]]) if own])
        for line in read_lines(run / "predictions.jsonl")
    ]


def _history(run: Path) -> list[dict]:
    keep = ("epoch", "train_loss", "valid_loss", "bleu4", "seconds", *SLOTS)
    return [{key: line.get(key) for key in keep} for line in read_lines(run / "history.jsonl")]


def _notes(data: Path) -> list[str]:
    corpus = _read_json(data / "corpus.json")
    dialogues, hours = corpus["dialogues"], corpus["seconds_of_audio"]["train"] / 3600
    return [
        f"Level {corpus['settings']['level']}: {dialogues['train']} training dialogues ({hours:.1f} hours of speech), "
        f"{dialogues['test']} test dialogues of "
        "voices and sentences that training never met; text_only is the same language model without speech.",
    ]


def _print_table(metrics: dict) -> None:
    print(f"\n{'':12}" + "".join(f"{name:>12}" for name in ("plus", "text_only", "chance")))
    for slot in (*SLOTS, "bleu4"):
        cells = (metrics[name].get(slot) for name in ("plus", "text_only", "chance"))
        print(f"{slot:12}" + "".join(f"{'':>12}" if value is None else f"{value:12.3f}" for value in cells))
    oracle = metrics["chance"]["trend_from_last_affect"]
    print(f"\ntrend from the last turn's affect alone: {oracle:.3f}")
    print(f"time taken: {metrics['seconds']:.0f} s")


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
