"""es4r listen and listen-report."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from es4r_toolkit.cli.options import AsJson, Table
from es4r_toolkit.cli.printing import complain, one_line, print_json, print_problems, progress

if TYPE_CHECKING:
    from es4r_toolkit.dialogue import Turn
    from es4r_toolkit.errors import ES4RError
    from es4r_toolkit.metrics.listening import Preference, RaterSummary

PAGE, KEY = "listen.html", "listen_key.json"
EXAMPLES = 3
HEAVY = 150_000_000  # bytes; above, browsers on phones and small computers give up


class Questions(StrEnum):
    """What raters are asked about."""

    ALL = "all"
    SPEECH = "speech"
    TEXT = "text"


def listen(
    first: Annotated[Path, typer.Argument(help="Replies of a system: predictions.jsonl or a folder of es4r respond.")],
    second: Annotated[Path, typer.Argument(help="Replies of the other to the same dialogues.")],
    output: Annotated[Path, typer.Option(help=f"Folder for {PAGE} and {KEY}.")],
    dialogues: Annotated[
        Path | None, typer.Option(help="Manifest of the dialogues, for their history.", show_default="no history")
    ] = None,
    questions: Annotated[Questions, typer.Option(help="What is asked: about speech, about text, or all.")] = "all",
    number: Annotated[
        int | None, typer.Option(min=1, help="How many dialogues, taken by chance.", show_default="all")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of which dialogues are taken, and of sides.")] = 0,
    names: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="FIRST SECOND", help="What the systems are called.", show_default="the paths"),
    ] = None,
    history_audio: Annotated[bool, typer.Option(help="Let raters hear the history, or read it alone.")] = True,
    table: Table = None,
    as_json: AsJson = False,
) -> None:
    """Make a blind listening test of two systems: one page for raters.

    Writes OUTPUT/listen.html, which needs no other file and no network, and OUTPUT/listen_key.json, which says who is
    who and stays with you. Raters open the page in a browser, compare the replies dialogue by dialogue, and send back
    the CSV file that it lets them download; es4r listen-report reads these.

    \b
    Example:
      es4r listen ours/predictions.jsonl theirs/predictions.jsonl --dialogues test.jsonl --number 30 --output listening
    """
    from es4r_toolkit.data.replies import read_replies
    from es4r_toolkit.data.responses import make_folder
    from es4r_toolkit.report.listening import make_test, pair_replies

    histories, faults = (None, []) if dialogues is None else _histories(dialogues, table)
    replies = []
    for source in (first, second):
        found, bad = read_replies(source)
        replies.append(found)
        faults += bad
    for fault in faults:
        complain(fault)
    pairs, remarks = pair_replies(*replies, histories)
    bar = partial(progress, unit="dialogue")
    systems = names or (str(first), str(second))
    test = make_test(pairs, systems, questions, seed, number, history_audio, bar)
    for fault in test.faults:
        complain(fault)
    faults, remarks = [*faults, *test.faults], remarks | test.remarks
    make_folder(output)
    page, key = output / PAGE, output / KEY
    test.write(page, key)
    size = page.stat().st_size
    if as_json:
        problems = [{"item": fault.item, "problem": fault.problem, "mend": fault.mend} for fault in faults]
        written = {"test": test.key.test, "page": str(page), "key": str(key), "bytes": size}
        print_json(written | {"dialogues": len(test.key.items), "remarks": remarks, "rejected": problems})
    else:
        for remark, ids in remarks.items():
            typer.echo(f"note: {len(ids)} {remark}: {_examples(ids)}", err=True)
        if dialogues is None:
            typer.echo("note: raters see no history; --dialogues MANIFEST shows it", err=True)
        if size > HEAVY:
            typer.echo(
                "note: so large a page is slow to open; --number or --no-history-audio makes it smaller", err=True
            )
        wanted = "" if number in (None, len(test.key.items)) else f" of {number} wanted"
        asked = sum(len(item.aspects) for item in test.key.items.values())
        typer.echo(f"{len(test.key.items)} dialogues{wanted}, {asked} questions, test {test.key.test}")
        typer.echo(f"for raters   {page} ({size / 1e6:.1f} MB)")
        typer.echo(f"for you      {key}: keep it from raters, listen-report needs it")
    raise typer.Exit(1 if faults else 0)


def listen_report(
    results: Annotated[list[Path], typer.Argument(help="The .csv files that raters downloaded.")],
    key: Annotated[
        Path | None, typer.Option(help="The key of the test.", show_default=f"{KEY} beside the first results")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for listening.json and listening.html.", show_default="none is written")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples that give the intervals.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say which system raters preferred, how surely, and how far they agree.

    Gives how often the first system wins, ties and loses on each aspect, with the 95 % intervals of a bootstrap over
    dialogues and raters, and Krippendorff's alpha. Rows of other tests, unknown, repeated or contradicting ones are
    named and left out.

    \b
    Example:
      es4r listen-report results/*.csv --key listening/listen_key.json --output listening
    """
    from es4r_toolkit.data.listening import read_key, read_ratings
    from es4r_toolkit.data.responses import make_folder, write_json
    from es4r_toolkit.metrics.listening import preferences, rater_summaries

    key = key or results[0].with_name(KEY)
    test = read_key(key)
    ratings, left_out = read_ratings(results, test)
    found, raters = preferences(ratings, seed), rater_summaries(ratings, test)
    report = {
        "test": test.test,
        "systems": list(test.systems),
        "aspects": {name: preference.as_dict() for name, preference in found.items()},
        "raters": {name: rater.as_dict() for name, rater in raters.items()},
        "left_out": [{"file": str(path), **vars(rejection)} for path, rejection in left_out],
    }
    if as_json:
        print_json(report)
    else:
        for path in dict.fromkeys(path for path, _ in left_out):
            typer.echo(f"left out of {one_line(path)}:")
            print_problems([rejection for where, rejection in left_out if where == path], path)
        _print_report(test.systems, found, raters)
    if output is not None:
        from es4r_toolkit.report.listening_report import write_listening_report

        make_folder(output)
        write_json(output / "listening.json", report)
        write_listening_report(output / "listening.html", test, found, raters, left_out)
        if not as_json:
            typer.echo(f"written to {output / 'listening.json'} and {output / 'listening.html'}")
    raise typer.Exit(1 if left_out or not ratings else 0)


def _histories(path: Path, table: Path | None) -> tuple[dict[str, tuple[Turn, ...]], list[ES4RError]]:
    from es4r_toolkit.data.manifest import read_manifest
    from es4r_toolkit.data.tables import table_options

    options = {} if table is None else {"table": table_options(table)}
    report = read_manifest(path, need_text=False, **options)
    histories = {dialogue.id: dialogue.history for dialogue in report.dialogues}
    return histories, [rejection.error(path) for rejection in report.rejected]


def _examples(names: list[str]) -> str:
    rest = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return one_line(", ".join(names[:EXAMPLES])) + rest


def _print_report(systems: tuple[str, str], found: dict[str, Preference], raters: dict[str, RaterSummary]) -> None:
    typer.echo(f"win: {one_line(systems[0])} is preferred; lose: {one_line(systems[1])} is")
    if not found:
        typer.echo("no ratings")
        return
    heads = [f"{name} %" for name in ("win", "tie", "lose", "win - lose")]
    typer.echo(f"{'':<12}{'ratings':>8}" + "".join(f"{head:>22}" for head in heads) + f"{'same':>8}{'alpha':>8}")
    for name, preference in found.items():
        shares = [(preference.shares[outcome], preference.intervals[outcome]) for outcome in preference.shares]
        cells = [_share(*share) for share in (*shares, (preference.net, preference.net_interval))]
        agreement = _figure(preference.agreement, "{:.0%}") + _figure(preference.alpha, "{:.2f}")
        typer.echo(f"{name:<12}{preference.ratings:>8}" + "".join(f"{cell:>22}" for cell in cells) + agreement)
    for name, rater in raters.items():
        side = "no preference" if rater.shown_first is None else f"{rater.shown_first:.0%} of preferences for A"
        typer.echo(f"{one_line(name)}: {rater.answered} of {rater.asked} answers, {rater.ties:.0%} ties, {side}")


def _share(share: float, interval: tuple[float, float]) -> str:
    return f"{100 * share:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _figure(value: float | None, form: str) -> str:
    return f"{'-' if value is None else form.format(value):>8}"
