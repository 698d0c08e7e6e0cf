"""es4r validate."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from es4r_toolkit.cli.options import AsJson, Confined, Table
from es4r_toolkit.cli.printing import print_json, print_problems, print_remarks, progress


def validate(
    manifests: Annotated[
        list[Path],
        typer.Argument(help="Dialogues: .jsonl, .json, .csv or .tsv files, one a split or one for all."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for the good dialogues, the rejects and report.html.", show_default="none of them"),
    ] = None,
    decode: Annotated[
        bool,
        typer.Option("--decode", help="Decode every recording: finds missing ends, NaN samples, clipping and silence."),
    ] = False,
    need_text: Annotated[
        bool, typer.Option(help="Reject turns without a transcript; off where a recognizer writes them down.")
    ] = True,
    need_response: Annotated[
        bool, typer.Option("--need-response", help="Reject dialogues without a reply, as training does.")
    ] = False,
    window: Annotated[float, typer.Option(min=1, help="Seconds of a dialogue that the speech encoder holds.")] = 240.0,
    confined: Confined = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read recordings; 0 is one for each core.")] = 0,
    table: Table = None,
    as_json: AsJson = False,
) -> None:
    """Check manifests of dialogues: say what is wrong with which, and what would hurt in training.

    With --output, writes for each MANIFEST its good dialogues (<name>.clean.jsonl) and the others with the reasons
    (<name>.rejects.jsonl), and for all of them report.html with histograms. Several manifests are taken as splits
    of one corpus, named by their files: what stands in more than one of them is named.

    \b
    Example:
      es4r validate train.jsonl valid.jsonl test.jsonl --decode --output checked
    """
    from es4r_toolkit.data.cleaning import split_names, write_clean
    from es4r_toolkit.data.inspection import InspectionLimits, inspect, measure
    from es4r_toolkit.data.manifest import read_manifest
    from es4r_toolkit.data.tables import table_options

    with _collector_at_rest():
        names = split_names(manifests)
        options = {"need_text": need_text, "need_response": need_response, "decode": decode, "workers": workers}
        options |= {"confined": confined} if table is None else {"confined": confined, "table": table_options(table)}
        reports = {name: read_manifest(path, progress=progress, **options) for name, path in names.items()}
        rejected = [rejection for report in reports.values() for rejection in report.rejected]
        remarks = inspect(reports, InspectionLimits(window=window))
        if output is not None:
            from es4r_toolkit.report.corpus_page import write_corpus_report

            for name, path in names.items():
                write_clean(output, name, path, reports[name])
            title = ", ".join(path.name for path in manifests)
            write_corpus_report(output / "report.html", title, measure(reports), rejected, remarks, "*.rejects.jsonl")
        good = [dialogue.id for report in reports.values() for dialogue in report.dialogues]
        if as_json:
            found = {"rejected": [vars(one) for one in rejected], "remarks": [vars(one) for one in remarks]}
            print_json({"good": good, **found})
        else:
            for name, path in names.items():
                print_problems(reports[name].rejected, path)
            print_remarks(remarks)
            typer.echo(f"{len(good)} good, {len(rejected)} rejected")
            if output is not None:
                typer.echo(f"written to {output}; look at {output / 'report.html'}")
    raise typer.Exit(1 if rejected else 0)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Millions of small things live to the end here: looking through them for cycles doubles the time."""
    working = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if working:
            gc.enable()
