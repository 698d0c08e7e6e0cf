"""es4r replay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from es4r_toolkit.cli.options import AsJson, Device, TrustRemoteCode
from es4r_toolkit.cli.printing import one_line, print_json

if TYPE_CHECKING:
    from es4r_toolkit.data.kept_batches import KeptBatch
    from es4r_toolkit.examining import Findings, Group


def replay(
    batch: Annotated[Path, typer.Argument(help="A folder that training kept: OUTPUT/nonfinite/epoch..._step....")],
    model: Annotated[
        str | None, typer.Option(help="Folder of a model to compute with.", show_default="the kept weights")
    ] = None,
    device: Device = "cpu",
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Compute a batch again whose numbers were not finite in training.

    From the weights and random numbers that training met it with, forward and back: says of each term of the loss and
    each part of the system whether it is finite, and where the first value arises that is not. Exit status 0 if
    everything is finite now, 1 if not.

    \b
    Example:
      es4r replay results/run/nonfinite/epoch1_step12
    """
    from es4r_toolkit import replaying

    kept, found = replaying.replay(batch, model, device, trust_remote_code)
    if as_json:
        place = {"batch": str(batch), "epoch": kept.epoch, "step": kept.step, "dialogues": kept.ids}
        print_json({**place, "settings": kept.settings, "then": kept.found, "now": found.as_dict()})
    else:
        _print(kept, found)
    raise typer.Exit(0 if found.is_finite else 1)


def _print(kept: KeptBatch, found: Findings) -> None:
    typer.echo(one_line(f"epoch {kept.epoch}, batch {kept.step}: {', '.join(kept.ids)}"))
    typer.echo(one_line(f"then: {kept.found.get('cause')}"))
    typer.echo(one_line(f"now:  {found.cause}"))
    typer.echo("\nloss")
    for name, value in found.terms.items():
        typer.echo(f"  {one_line(name):<32} {value:>12.6g}")
    typer.echo(f"  {'norm of the gradients':<32} {found.gradient_norm:>12.6g}")
    typer.echo(f"\n{'trained weights':<34} {'weights':>14} {'gradients':>14}")
    for name, group in found.groups.items():
        typer.echo(f"  {one_line(name):<32} {_count(group.weights, group):>14} {_count(group.gradients, group):>14}")
    firsts = {"first value": found.forward, "first gradient": found.backward, "first weight's gradient": found.weight}
    shown = {name: place for name, place in firsts.items() if place is not None}
    if shown:
        typer.echo("\nnot finite")
        for name, place in shown.items():
            typer.echo(f"  {name:<24} {one_line(place)}")


def _count(broken: list[str], group: Group) -> str:
    return f"{len(broken)} of {group.size} not" if broken else "finite"
