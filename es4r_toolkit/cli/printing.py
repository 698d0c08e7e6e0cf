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
        elif name == "comparison":
            typer.echo(f"{'':<14} {'this':>8} {'other':>8} {'less':>8}  of {value['paired']} dialogues of both")
            for metric, row in value["metrics"].items():
                numbers = f"{row['first']:>8.4f} {row['second']:>8.4f} {row['difference']:>+8.4f}"
                typer.echo(f"{one_line(metric):<14} {numbers}  {_between(row['interval'])}  p {row['p']:.4f}")
        elif isinstance(value, float):
            typer.echo(f"{name:<14} {value:.4f}  {_between(metrics['interval'].get(name))}".rstrip())
        elif isinstance(value, int):
            typer.echo(f"{name:<14} {value}")


def _between(interval: list[float] | None) -> str:
    return "" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"
