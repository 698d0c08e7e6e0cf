"""es4r demo."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from es4r_toolkit.cli.options import Device, Precision, Revision, TrustRemoteCode, keep_little
from es4r_toolkit.cli.printing import complain


def demo(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Folder or hub name of a model; again for another.", show_default="the shipped model"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve on; 0.0.0.0 lets the whole network in.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to serve on.", show_default="the first free from 7860 on")
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="Manifest of dialogues to begin with.", show_default="shared/data/avamerg_demo"),
    ] = None,
    device: Device = "cpu",
    precision: Precision = "fp32",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Talk to a model on a web page, hear it answer, and see why it answers so.

    Needs the extra [demo]. The page is served on this machine alone unless --host says otherwise, and needs no
    network. The small model of the package is always among those that can be chosen.

    \b
    Example:
      es4r demo
      es4r demo --model results/mine/model --examples dialogues.jsonl
    """
    keep_little()
    from es4r_toolkit.demo.serving import check_installed, find_examples, serving

    check_installed()
    dialogues, rejected = find_examples(examples)
    for rejection in rejected:
        complain(rejection.error(examples or "examples"))
    from es4r_toolkit.demo.models import offer

    offered = offer(model or [], {"device": device, "precision": precision}, revision, trust_remote_code)
    for one in offered:
        one.warm_up()
    ended = threading.Event()
    # Ended from outside, the page still takes its folder away.
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with serving(offered, dialogues, host, port) as address:
        typer.echo(f"{address}  ({len(offered)} models, {len(dialogues)} examples; Ctrl-C ends it)")
        try:
            ended.wait()
        except KeyboardInterrupt:
            typer.echo("")
