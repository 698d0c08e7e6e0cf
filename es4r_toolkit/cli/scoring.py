"""es4r evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from es4r_toolkit.cli.options import AsJson
from es4r_toolkit.cli.printing import complain, one_line, print_json, print_metrics


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="A .jsonl file; each line has response and reference.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json.", show_default="that of the predictions")
    ] = None,
    slots: Annotated[
        Path | None, typer.Option(help="Slot table.", show_default="slots.json beside the predictions")
    ] = None,
    representations: Annotated[
        Path | None,
        typer.Option(
            help="A .jsonl file of what the model made of each turn.",
            show_default="representations.jsonl beside the predictions",
        ),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another system's predictions on the same dialogues.", show_default="none")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score replies against references.

    Gives BLEU, ROUGE and distinct-n, slot accuracies where slots are given, and the dialogue cohesion ratio where
    representations are, each but distinct-n with the 95 % interval of a bootstrap over dialogues. With --compare, by
    how much this system scores better than another, and how likely chance makes such a difference of equal ones.

    \b
    Example:
      es4r evaluate results/predictions.jsonl --output results
    """
    from es4r_toolkit.data.representations import REPRESENTATIONS
    from es4r_toolkit.data.responses import make_folder, write_json
    from es4r_toolkit.metrics.evaluation import evaluate as score

    evaluation = score(predictions, slots, representations, compare)
    turns = representations or predictions.with_name(REPRESENTATIONS)
    for path, rejected in ((predictions, evaluation.rejected), (turns, evaluation.unlike)):
        for rejection in rejected:
            complain(rejection.error(path))
    for note in evaluation.notes:
        typer.echo(f"note: {one_line(note)}", err=True)
    folder = predictions.parent if output is None else output
    make_folder(folder)
    write_json(folder / "metrics.json", evaluation.metrics)
    if as_json:
        left_out = {
            "rejected": [vars(rejection) for rejection in evaluation.rejected],
            "rejected_representations": [vars(rejection) for rejection in evaluation.unlike],
        }
        print_json({"metrics": evaluation.metrics, **left_out, "notes": evaluation.notes})
    else:
        print_metrics(evaluation.metrics)
        typer.echo(f"written to {folder / 'metrics.json'}")
    raise typer.Exit(1 if evaluation.rejected or evaluation.unlike else 0)
