"""es4r latency."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from es4r_toolkit.cli.options import AsJson, Device, ModelFolder, Precision, TrustRemoteCode
from es4r_toolkit.cli.printing import print_json, progress


def latency(
    output: Annotated[Path, typer.Option(help="Folder for latency.json, waterfall.svg and by_history.svg.")],
    model: ModelFolder = None,
    device: Device = "cpu",
    precision: Precision = "fp32",
    seconds: Annotated[float, typer.Option(min=0.1, max=30, help="Length of a speaker's turn.")] = 5.0,
    turns: Annotated[int, typer.Option(min=1, help="Speaker's turns of a conversation.")] = 28,
    conversations: Annotated[int, typer.Option(min=1, help="How many are held.")] = 3,
    written: Annotated[
        bool, typer.Option("--written", help="Give the words with each turn; nothing is recognized.")
    ] = False,
    unit: Annotated[str, typer.Option(help="What the voice waits for: sentence or clause.")] = "sentence",
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Time a conversation: from the end of a turn to the first sound of the reply, and where the time goes.

    The speaker's turns are spoken by espeak-ng, each a file that was never heard before. With the defaults and the
    shipped model the history comes near the end of the speech encoder's window.

    \b
    Example:
      es4r latency --output results/latency
    """
    from es4r_toolkit.backends.espeak import EspeakSynthesizer
    from es4r_toolkit.data.responses import make_folder, write_json
    from es4r_toolkit.inference import EmpathyResponder
    from es4r_toolkit.inference.latency import SAID, spoken_turns, summary, time_conversations
    from es4r_toolkit.report.latency_plots import by_history, waterfall
    from es4r_toolkit.report.pictures import write_picture

    options = {"device": device, "precision": precision}
    responder = EmpathyResponder.from_hparams(model, run_opts=options, trust_remote_code=trust_remote_code)
    make_folder(output)
    recordings = spoken_turns(EspeakSynthesizer("en-us+m3"), responder.sample_rate, seconds)
    timing = time_conversations(responder, recordings, turns, conversations, SAID[0] if written else "", unit=unit)
    timed = list(progress(timing, unit="turn", total=turns * conversations))
    found = {"model": model or "shipped", **options, "seconds": seconds, "unit": unit, **summary(timed)}
    write_json(output / "latency.json", found)
    middle, most = ({name: row[kind] for name, row in found["segments"].items()} for kind in ("median", "p95"))
    write_picture(output / "waterfall.svg", waterfall(middle, most))
    write_picture(output / "by_history.svg", by_history(found["each"]))
    if as_json:
        print_json(found)
        return
    typer.echo(f"{len(timed)} turns of {seconds:g} s, {conversations} conversations; seconds")
    typer.echo(f"{'':34} {'median':>8} {'p95':>8}")
    names = ("to_first_audio", "to_first_audio_without_recognition")
    for name, row in [*found["segments"].items(), *((name, found[name]) for name in names)]:
        typer.echo(f"{name.replace('_', ' '):34} {row['median']:>8.3f} {row['p95']:>8.3f}")
    typer.echo(f"{output}/latency.json, waterfall.svg, by_history.svg")
