"""What the commands print, and how."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from es4r_toolkit.errors import ES4RError

if TYPE_CHECKING:
    from es4r_toolkit.data.inspection import Remark
    from es4r_toolkit.data.records import Rejection

EXAMPLES = 3


def progress(items: Iterable, unit: str, total: int | None = None) -> Iterable:
    """A bar on a terminal over what is gone through."""
    from tqdm import tqdm

    # None shows the bar on a terminal only; files and pipes stay free of it.
    return tqdm(items, unit=unit, total=total, file=sys.stderr, disable=None, leave=False)


def one_line(text: object) -> str:
    """A text without line breaks and without characters that would steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


def print_beside_bar(line: str, err: bool = False) -> None:
    """A line that leaves a bar in place."""
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        typer.echo(one_line(line), err=err)


def complain(error: ES4RError, of: str | None = None) -> None:
    """A fault that a user can mend, on stderr."""
    print_beside_bar(f"error: {error}" if of is None else f"error: {of}: {error}", err=True)


def print_json(value: object) -> None:
    """One JSON object on stdout."""
    # ASCII, so that no terminal or pipe can fail to encode it.
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def print_problems(rejected: Sequence[Rejection], path: Path) -> None:
    """A table of what is wrong, by kind, the commonest first, with examples."""
    from es4r_toolkit.data.records import place_of

    def example(rejection: Rejection) -> str:
        place = place_of(path, rejection.line)
        name = place if rejection.item == place else f"{rejection.item} ({place})"
        return f"{name}: {rejection.field} {rejection.problem}"

    _print_kinds(rejected, example)


def print_remarks(remarks: Sequence[Remark]) -> None:
    """The same of what is odd and stays."""
    if remarks:
        typer.echo("These stay in, and are worth a look:")
        _print_kinds(remarks, lambda remark: f"{remark.item}: {remark.seen}")


def _print_kinds(problems: Sequence, example: Callable[[Any], str]) -> None:
    from es4r_toolkit.data.inspection import by_kind

    for kind, members in by_kind(problems):
        typer.echo(f"{len(members):6d}  {one_line(kind)}")
        for problem in members[:EXAMPLES]:
            typer.echo(f"        {one_line(example(problem))}")
        if len(members) > EXAMPLES:
            typer.echo(f"        and {len(members) - EXAMPLES} more")
        typer.echo(f"        mend: {one_line(members[0].mend)}")


def print_metrics(metrics: dict[str, object]) -> None:
    """Scores, a line each."""
    chances = metrics.get("slot_chance", {})
    for name, value in metrics.items():
        if name == "slot_accuracy":
            for slot, accuracy in value.items():
                between = _between(metrics["slot_interval"][slot])
                typer.echo(f"{one_line(slot):<14} {accuracy:.4f}  {between}  (chance {chances[slot]:.4f})")
        elif name == "cohesion_ratio":
            for kind, ratio in value.items():
                between = _between(metrics["cohesion_interval"].get(kind))
                typer.echo(f"{'cohesion':<14} {ratio:.4f}  {between}  ({one_line(kind)})")
        elif name == "bertscore_settings":
            typer.echo(f"{'':<14} {one_line(value['hash'])}; layer by {one_line(value['layer_by'])}")
        elif name == "speech":
            _print_speech(value)
        elif name == "published":
            _print_published(value)
        elif name in ("comparison", "speech_comparison"):
            _print_comparison(value)
        elif isinstance(value, float):
            typer.echo(f"{name:<14} {value:.4f}  {_between(metrics['interval'].get(name))}".rstrip())
        elif isinstance(value, int):
            typer.echo(f"{name:<14} {value}")


def _print_comparison(comparison: dict[str, object]) -> None:
    """Two systems side by side, and by how much they differ."""
    width = max(14, *(len(metric) for metric in comparison["metrics"]))
    typer.echo(f"{'':<{width}} {'this':>8} {'other':>8} {'diff.':>8}  of {comparison['paired']} dialogues of both")
    for metric, row in comparison["metrics"].items():
        numbers = f"{row['first']:>8.4f} {row['second']:>8.4f} {row['difference']:>+8.4f}"
        typer.echo(f"{one_line(metric):<{width}} {numbers}  {_between(row['interval'])}  p {row['p']:.4f}")


def _print_speech(speech: dict[str, object]) -> None:
    """How the replies sound, and whether they were spoken as their strategies asked."""
    from es4r_toolkit.metrics.speech import FIGURES

    typer.echo(f"speech of {speech['heard']} replies, {speech['rejected']} left out")
    for name, figure in FIGURES.items():
        if name in speech:
            unit = figure.unit.format(recognizer=one_line(speech.get("recognizer")))
            typer.echo(f"  {name:<18} {speech[name]:>9.4f}  {_between(speech['interval'][name])}  {unit}")
    if speech.get("agreement"):
        typer.echo(f"  {'asked':<15} {'measured':<16} {'rank correlation':<24} slope (1: as asked)")
    for field, found in speech.get("agreement", {}).items():
        correlation, slope = (
            f"{found[name]:>5.2f} {_between(found[f'{name}_interval'], 2):<18}" for name in ("correlation", "slope")
        )
        typer.echo(f"  {field:<15} {found['measured']:<16} {correlation} {slope}".rstrip())
    for strategy, row in speech.get("by_strategy", {}).items():
        means = ", ".join(f"{name} {value:.2f}" for name, value in row.items() if name != "replies")
        typer.echo(f"  {one_line(strategy)} ({row['replies']}): {means}")


def _print_published(tables: list[dict[str, object]]) -> None:
    """What others have published, each row marked as such."""
    for table in tables:
        names = [name for name, value in table["rows"][0].items() if isinstance(value, float)]
        width = max(len(row["system"]) for row in table["rows"])
        typer.echo(f"\npublished, not measured here: {table['source']}, on {table['corpus']} ({table['url']})")
        typer.echo(f"{'':{width}}  " + " ".join(f"{name:>9}" for name in names))
        for row in table["rows"]:
            remark = f"  ({row['remark']})" if row["remark"] else ""
            typer.echo(
                f"{row['system']:{width}}  " + " ".join(f"{row[name]:>9.4f}" for name in names) + f"  published{remark}"
            )


def _between(interval: list[float] | None, digits: int = 4) -> str:
    return "" if interval is None else f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
