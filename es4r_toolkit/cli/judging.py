"""es4r judge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from es4r_toolkit.cli.options import AsJson, Table
from es4r_toolkit.cli.printing import EXAMPLES, complain, one_line, print_json, progress
from es4r_toolkit.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from es4r_toolkit.metrics.judge.asking import Judge, Settings
    from es4r_toolkit.metrics.judge.judging import Judging

KEY_VARIABLE = "ES4R_JUDGE_KEY"
CONCURRENCY = 4


def judge(
    predictions: Annotated[Path, typer.Argument(help="A .jsonl file; each line has response, reference and an id.")],
    output: Annotated[Path, typer.Option(help="Folder for judge.json, verdicts.jsonl and judgements.jsonl.")],
    against: Annotated[
        Path | None,
        typer.Option(help="Another system's predictions, to say which is better.", show_default="scores of one system"),
    ] = None,
    dialogues: Annotated[
        Path | None,
        typer.Option(
            help="Manifest of the dialogues, found by id; words are enough.", show_default="judge by the reference"
        ),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible address: http://localhost:8000/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model's name at the endpoint.")] = None,
    local: Annotated[Path | None, typer.Option(help="Folder of a language model, in place of an endpoint.")] = None,
    device: Annotated[str, typer.Option(help="Where a local model runs, such as cuda:0.")] = "cpu",
    precision: Annotated[str, typer.Option(help="Of a local model: fp32 or bf16.")] = "fp32",
    prompts: Annotated[
        Path | None, typer.Option(help="YAML with prompts of your own.", show_default="those of the package")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A field of the request; NAME=null leaves it out. May be given several times.",
            show_default="temperature=0, max_tokens=1024",
        ),
    ] = None,
    key_variable: Annotated[
        str | None,
        typer.Option(help="Environment variable with the API key.", show_default=f"{KEY_VARIABLE}, where it is set"),
    ] = None,
    price_in: Annotated[float | None, typer.Option(min=0, help="Of a million tokens of prompts.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="Of a million tokens of answers.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=64, help="Requests at once.", show_default=f"{CONCURRENCY}; local: 1")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one request.")] = 120.0,
    retries: Annotated[int, typer.Option(min=0, help="Further attempts where a request fails.")] = 5,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the requests and show one prompt; ask and write nothing.")
    ] = False,
    table: Table = None,
    as_json: AsJson = False,
) -> None:
    """Let a language model judge replies: scores from 0 to 10, or which of two systems is better.

    Every answer is kept in OUTPUT/judgements.jsonl: the same command again asks only what is missing there, and so goes
    on where a run was stopped. Two systems are compared in both orders; a verdict that turns with the order is a tie.
    What cannot be read as a verdict is counted and listed, and never scored. What a judge is worth, and what it costs:
    docs/evaluation.md.

    \b
    Example:
      es4r judge predictions.jsonl --dialogues test.jsonl --endpoint http://localhost:8000/v1 --model NAME --output out
    """
    from es4r_toolkit.data.tables import table_options
    from es4r_toolkit.metrics.judge.judging import RESULT, Judging
    from es4r_toolkit.metrics.judge.prompts import PROMPTS

    if (endpoint is None) == (local is None):
        raise typer.BadParameter("give one of --endpoint and --local")
    if (endpoint is None) != (model is None):
        raise typer.BadParameter("--endpoint and --model go together")
    if (price_in is None) != (price_out is None):
        raise typer.BadParameter("--price-in and --price-out go together")
    if local is not None and concurrency not in (None, 1):
        raise typer.BadParameter("a local model answers one request at a time; leave out --concurrency")
    settings = _settings(endpoint, model, local, precision, setting or [])
    options = {} if table is None else {"table": table_options(table)}
    judging = Judging.plan(predictions, output, settings, against, dialogues, prompts or PROMPTS, **options)
    for fault in judging.cases.faults:
        complain(fault)
    for note in [*judging.cases.notes, *judging.judgements.faults]:
        _note(note)
    if dry_run:
        _print_plan(judging, as_json)
        raise typer.Exit(1 if judging.cases.faults else 0)
    if judging.missing:
        asked = _local(settings, device) if endpoint is None else _remote(settings, key_variable, timeout, retries)
        several = concurrency or (1 if endpoint is None else CONCURRENCY)
        if not judging.ask(asked, several, partial(progress, unit="request")):
            complain(BackendError(settings.source, "failed too often in a row", "see why, and give the command again"))
    result = judging.conclude(price_in, price_out)
    if as_json:
        print_json(result)
    else:
        _print_result(result)
        typer.echo(f"written to {output / RESULT}")
    raise typer.Exit(1 if judging.cases.faults or result["not_judged"] else 0)


def _settings(
    endpoint: str | None, model: str | None, local: Path | None, precision: str, settings: list[str]
) -> Settings:
    options = dict(_option(one) for one in settings)
    if endpoint is None:
        from es4r_toolkit.metrics.judge.local import local_settings

        return local_settings(local, precision, options)
    from es4r_toolkit.metrics.judge.endpoint import endpoint_settings

    return endpoint_settings(endpoint, model, options)


def _option(written: str) -> tuple[str, object]:
    """``max_tokens=200`` -> its name and value; what is not JSON is a string."""
    name, sign, value = written.partition("=")
    if not sign or not name:
        raise typer.BadParameter(f"{written!r} is no NAME=VALUE")
    try:
        return name, json.loads(value, parse_constant=str)
    except ValueError:
        return name, value


def _local(settings: Settings, device: str) -> Judge:
    from es4r_toolkit.metrics.judge.local import LocalModel

    return LocalModel(settings, device)


def _remote(settings: Settings, variable: str | None, timeout: float, retries: int) -> Judge:
    from es4r_toolkit.metrics.judge.endpoint import Endpoint, is_in_the_clear, read_key

    key = read_key(variable or KEY_VARIABLE)
    if variable is not None and key is None:
        raise ConfigError(variable, "is not set in the environment", "export the key in it")
    if key is not None and is_in_the_clear(settings.source):
        _note(f"the key goes to {settings.source} unencrypted")
    return Endpoint(settings, key, timeout, retries)


def _note(text: str) -> None:
    typer.echo(f"note: {one_line(text)}", err=True)


def _print_plan(judging: Judging, as_json: bool) -> None:
    missing, every = judging.missing, [one for several in judging.asked for one in several]
    letters = sum(len(message["content"]) for one in missing for message in one.messages)
    shown = (missing or every)[0].messages if every else []
    plan = {"cases": len(judging.cases.good), "requests": len({one.key for one in every})}
    plan |= {"to_ask": len(missing), "characters": letters}
    if as_json:
        print_json({**plan, "judge": judging.settings.as_dict(), "messages": shown})
        return
    for message in shown:
        typer.echo(f"--- {message['role']}")
        for line in message["content"].splitlines():
            typer.echo(one_line(line))
    typer.echo("---")
    typer.echo(f"{plan['cases']} cases, {plan['requests']} requests, {plan['to_ask']} of them still to ask")
    typer.echo(f"their prompts hold {letters} characters; nothing was asked")


def _print_result(result: Mapping[str, Any]) -> None:
    for aspect, row in result.get("scores", {}).items():
        typer.echo(f"{one_line(aspect):<14} {row['mean']:5.2f}  {_between(row['interval'])}")
    if "pairs" in result:
        typer.echo(f"{'':<14} {'win':>6} {'tie':>6} {'lose':>6} {'net':>7}")
    for aspect, row in result.get("pairs", {}).items():
        shares = " ".join(f"{row[way]:6.3f}" for way in ("win", "tie", "lose"))
        net = f"{row['net']:+7.3f}  {_between(row['net_interval'], '+.3f')}  p {row['p']:.4f}"
        typer.echo(f"{one_line(aspect):<14} {shares} {net}  {row['flipped']} flipped")
    if (bias := result.get("position_bias")) is not None:
        places = f"{bias['to_the_first_shown']} to the first shown, {bias['to_the_second_shown']} to the second"
        typer.echo(f"position bias  {bias['share']:.3f} of {bias['verdicts']} verdicts turned with the order: {places}")
    for status in ("judged", "unparsable", "failed", "unasked"):
        by = f" of {result['cases']}, by the {result['judged_by']}" if status == "judged" else ""
        if status == "judged" or result[status]:
            typer.echo(f"{status:<14} {result[status]}{by}")
        examples = [one for one in result["not_judged"] if one["status"] == status]
        for one in examples[:EXAMPLES] if status != "unasked" else ():
            typer.echo(f"    {one_line(one['id'])}: {one_line(one['problem'])}")
    for name, cost in result["cost"].items():
        money = f", money {cost['money']:.4f}" if "money" in cost else ""
        silent = f"; the server does not say what {cost['without_usage']} cost" if cost["without_usage"] else ""
        label = "cost" if name == "all" else "of it now"
        typer.echo(f"{label:<14} {cost['tokens_in']} tokens in, {cost['tokens_out']} out{money}{silent}")


def _between(interval: list[float], form: str = ".2f") -> str:
    return f"[{interval[0]:{form}}, {interval[1]:{form}}]"
