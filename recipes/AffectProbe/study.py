"""Train and score every variant of hparams/study.yaml under one budget; tables and a figure of what each is worth.

Run from the project's root: python recipes/AffectProbe/study.py
A study that was broken off goes on with the same command, on another machine too where its tables are there.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, fields
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from speechbrain.core import RunOptions
from study_tables import Score, figure, markdown, read_score, summarize
from tqdm import tqdm

from es4r_toolkit.data.responses import write_json
from es4r_toolkit.errors import ConfigError, ES4RError, require
from es4r_toolkit.hparams import compose, plain

RECIPE = Path(__file__).parent
TRAIN, HPARAMS, STUDY = RECIPE / "train.py", RECIPE / "hparams" / "train.yaml", RECIPE / "hparams" / "study.yaml"
# Where a run is, which changes nothing of it.
PLACES = ("data_folder", "backbones", "output_folder")
RECORDS = "runs.jsonl"
RUN_OPTIONS = {option.name for option in fields(RunOptions)}


@dataclass(frozen=True)
class Run:
    """One training: a variant on some voices, with one seed or fold.

    Attributes
    ----------
    voices, name, variant : str
        As the study's YAML has them.
    settings : dict
        Keys of the train YAML that it changes.
    folder : Path
        Where it goes.
    """

    voices: str
    name: str
    variant: str
    settings: dict
    folder: Path

    @property
    def corpus(self) -> tuple[str, str]:
        """Runs of the same corpus share its folder and backbones."""
        return self.voices, self.name

    @property
    def name_of_all(self) -> tuple[str, str, str]:
        """What tables call it."""
        return self.voices, self.name, self.variant

    def digest(self) -> str:
        """Of every value that it is trained with, wherever its folders are."""
        given = {key: value for key, value in self.settings.items() if key not in PLACES}
        # What is null is off: a switch that came later changes nothing of a run without it.
        kept = {key: value for key, value in plain(compose(HPARAMS, given)).items() if value is not None}
        values = json.dumps(kept, sort_keys=True, default=str)
        return hashlib.sha256(values.encode()).hexdigest()[:16]

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.folder.with_suffix(".log")

    def finished(self) -> bool:
        """Whether its scores and its model are there.

        Raises
        ------
        ConfigError
            If what is there was made with other settings.
        """
        made = self.folder / "hyperparams.yaml"
        if made.is_file() and plain(made.read_text(encoding="utf-8")) != plain(compose(HPARAMS, self.settings)):
            raise ConfigError(self.folder, "was trained with other settings", "remove it, or give another --output")
        # The scores are written last.
        return all((self.folder / name).is_file() for name in ("scores.json", "model/trained.safetensors"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 good, 1 where a run failed or a setting is wrong, 130 where it was broken off."""
    options = _options(arguments)
    # Told to end, it ends its runs too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return study(options.study, Path(options.output), options.workers, Path(options.tables or options.output))
    except ES4RError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("broken off; the same command goes on", file=sys.stderr)
        return 130


def study(path: str, output: Path, workers: int, tables: Path) -> int:
    """Run what is not there yet, then write the tables of all that is; the number of failed runs, at most 1."""
    require(workers >= 1, "workers", workers, "must be at least 1")
    plan = read_plan(path)
    runs = plan_runs(plan, output)
    records = read_records(tables / RECORDS, runs)
    waiting = [run for run in runs if run.name_of_all not in records and not run.finished()]
    kept = f"{len(runs) - len(waiting)} of them finished before, {len(records)} kept in {tables / RECORDS}"
    print(f"{len(runs)} runs, {kept}; logs are in {output}", flush=True)
    for run in runs:
        if run.name_of_all not in records and run not in waiting:
            records[run.name_of_all] = keep(run, tables / RECORDS)
    training = Training(waiting, lambda run: records.update({run.name_of_all: keep(run, tables / RECORDS)}))
    failed = training.run(workers)
    if records:
        ordered = [records[run.name_of_all] for run in runs if run.name_of_all in records]
        write_lines(tables / RECORDS, ordered)
        write_tables([Score.of(record) for record in ordered], plan, tables)
    for run in failed:
        print(f"failed: {run.variant}, {run.voices} {run.name}: see {run.log}", file=sys.stderr)
    return int(bool(failed))


def read_plan(path: str) -> dict:
    """The YAML of a study, with every part that may be left out.

    Raises
    ------
    ConfigError
        If it cannot be read or lacks a part.
    """
    try:
        plan = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except (OSError, YAMLError) as fault:
        raise ConfigError(
            path, f"cannot be read ({' '.join(str(fault).split())})", "name the YAML of a study"
        ) from None
    for part in ("voices", "variants", "reference"):
        if not isinstance(plan, dict) or not plan.get(part):
            raise ConfigError(path, f"has no {part}", "see recipes/AffectProbe/hparams/study.yaml")
    if plan["reference"] not in plan["variants"]:
        raise ConfigError("reference", f"{plan['reference']!r} is no variant", f"name one of {list(plan['variants'])}")
    plan["variants"] = {str(name): changes or {} for name, changes in plan["variants"].items()}
    for voices, made in plan["voices"].items():
        if not isinstance(made, dict) or not made.get("runs"):
            raise ConfigError(f"voices.{voices}", "has no runs", "give each a seed or a fold")
        made["settings"] = made.get("settings") or {}
        made["runs"] = {str(name): chosen or {} for name, chosen in made["runs"].items()}
    return plan


def keep(run: Run, path: Path) -> dict:
    """Add what a finished run has scored to the records."""
    record = read_score(*run.name_of_all, run.folder).record() | {"digest": run.digest()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    return record


def read_records(path: Path, runs: Sequence[Run]) -> dict[tuple[str, str, str], dict]:
    """What was scored before, by the names of voices, run and variant; those that the plan has not are left out.

    Raises
    ------
    ConfigError
        If one was trained with other settings than the plan has now.
    """
    known = {names_of(line): line for line in whole_lines(path)}
    found = {run.name_of_all: (known[run.name_of_all], run) for run in runs if run.name_of_all in known}
    for names, (record, run) in found.items():
        if record["digest"] != run.digest():
            problem = f"{', '.join(names)} was trained with other settings than the plan has"
            raise ConfigError(path, problem, "remove its line, or give another --tables")
    return {names: record for names, (record, _) in found.items()}


def whole_lines(path: Path) -> list[dict]:
    """The lines of a file of records; one that a kill cut short is dropped."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        path.write_text(text, encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def write_lines(path: Path, records: Sequence[dict]) -> None:
    """Records in the order of the plan, then those of other plans, each once."""
    named = {names_of(record): record for record in records}
    others = {names_of(line): line for line in whole_lines(path) if names_of(line) not in named}
    beside = path.with_suffix(".new")
    lines = [*named.values(), *others.values()]
    beside.write_text("".join(json.dumps(record) + "\n" for record in lines), encoding="utf-8")
    beside.replace(path)


def names_of(record: Mapping) -> tuple[str, str, str]:
    """The names of voices, run and variant."""
    return record["voices"], record["run"], record["variant"]


def plan_runs(plan: Mapping, output: Path) -> list[Run]:
    """Every run, variant by variant, so that the first ones make the corpora that the others find.

    Raises
    ------
    ConfigError
        If a run names a key that the train YAML has not, or would change the
        corpus or the backbones that it shares with others.
    """
    runs: list[Run] = []
    shares: dict[tuple[str, str], list] = {}
    for variant, changes in plan["variants"].items():
        for voices, made in plan["voices"].items():
            for name, chosen in made["runs"].items():
                shared = output / _file_name(voices) / _file_name(name)
                folder = shared / _file_name(variant)
                places = dict(zip(PLACES, (str(shared / "data"), str(shared / "backbones"), str(folder))))
                settings = {**made["settings"], **chosen, **changes, **places}
                run = Run(voices, name, variant, settings, folder)
                _check(run, shares)
                runs.append(run)
    twins = {run.folder for run in runs if sum(other.folder == run.folder for other in runs) > 1}
    if twins:
        raise ConfigError("study", f"{sorted(map(str, twins))} would be the folder of two runs", "rename a variant")
    return runs


def _check(run: Run, shares: dict[tuple[str, str], list]) -> None:
    if run.folder.name in ("data", "backbones"):
        raise ConfigError(run.variant, "would be the folder of a corpus", "rename the variant")
    taken = sorted(RUN_OPTIONS & run.settings.keys())
    if taken:
        raise ConfigError(
            run.variant, f"sets {taken[0]}, which SpeechBrain takes for itself", "write it into a train YAML"
        )
    values = plain(compose(HPARAMS, run.settings))
    made = [values["prepare"], values["pretrain"]]
    if shares.setdefault(run.corpus, made) != made:
        what = f"changes the corpus or the backbones of {run.voices}, {run.name}"
        raise ConfigError(run.variant, what, "make it voices of their own")


class Training:
    """Trains some runs side by side, one thread each.

    Arguments
    ---------
    runs : sequence of Run
    done : callable
        What to do with each that has ended well; one at a time.
    """

    def __init__(self, runs: Sequence[Run], done: Callable[[Run], object] = lambda run: None):
        self.runs, self.failed, self._done = runs, [], done
        self._making = {run.corpus: threading.Lock() for run in runs}
        self._made: set[tuple[str, str]] = set()
        self._starting, self._going, self._ending = threading.Lock(), set(), False

    def run(self, workers: int) -> list[Run]:
        """Train them; returns those that failed."""
        with ThreadPoolExecutor(workers) as pool, tqdm(total=len(self.runs), desc="study", unit="run") as bar:
            try:
                for ended in as_completed([pool.submit(self._train, run) for run in self.runs]):
                    bar.update()
                    run = ended.result()
                    if run not in self.failed:
                        self._done(run)
                    tqdm.write(_told(run, self.failed))
            except BaseException:
                self._end()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return self.failed

    def _train(self, run: Run) -> Run:
        with self._making[run.corpus]:
            # The first of a corpus makes it, and the others wait until it is there.
            first = run.corpus not in self._made
            good = first and self._succeeds(run)
            if good:
                self._made.add(run.corpus)
        if not first:
            good = self._succeeds(run)
        if not good:
            self.failed.append(run)
        return run

    def _succeeds(self, run: Run) -> bool:
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        given = [f"--{key}={value}" for key, value in run.settings.items()]
        # Two processes of two threads each would wait for one another far longer than they compute.
        alone = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with run.log.open("a", encoding="utf-8") as log:
            with self._starting:
                if self._ending:
                    return False
                command = [sys.executable, TRAIN, HPARAMS, *given]
                process = subprocess.Popen(command, env=alone, stdout=log, stderr=log)
                self._going.add(process)
            status = process.wait()
        with self._starting:
            self._going.discard(process)
        return status == 0 and run.finished()

    def _end(self) -> None:
        """End the runs that are going, and start no other."""
        with self._starting:
            self._ending = True
            for process in self._going:
                process.terminate()


def _told(run: Run, failed: Sequence[Run]) -> str:
    place = f"{run.voices}, {run.name}, {run.variant}"
    if run in failed:
        return f"{place}: failed, see {run.log}"
    scores = json.loads((run.folder / "scores.json").read_text(encoding="utf-8"))
    return f"{place}: " + ", ".join(f"{slot} {scores[slot]:.3f}" for slot in ("affect", "trend", "topic"))


def write_tables(scores: Sequence[Score], plan: Mapping, folder: Path) -> None:
    """``runs.csv`` (a row a run), ``study.json`` and ``study.md`` (a row a variant), and ``study.png``.

    ``runs.jsonl`` beside them holds every answer right or wrong: of it they can be made again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarize(scores, plan)
    with (folder / "runs.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [score.row() for score in scores]
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_json(folder / "study.json", summary)
    (folder / "study.md").write_text(markdown(summary), encoding="utf-8")
    figure(summary, folder / "study.png")
    print(markdown(summary))
    print(f"tables and figure: {folder.resolve()}")


def _file_name(name: object) -> str:
    return re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train and score every variant of a study under one budget. Runs that are finished are kept, "
        "broken-off ones go on from their last checkpoint.",
        epilog="example: python recipes/AffectProbe/study.py --output results/study --tables docs/study",
    )
    parser.add_argument("--study", default=str(STUDY), help="YAML of voices and variants [%(default)s]")
    parser.add_argument("--output", default="results/study", help="folder for corpora and runs [%(default)s]")
    parser.add_argument("--tables", help="folder for the tables and the figure [that of the runs]")
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, one thread each [%(default)s]")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
