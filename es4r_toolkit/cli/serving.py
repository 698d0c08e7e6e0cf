"""es4r serve."""

from __future__ import annotations

import logging
import os
from typing import Annotated

import typer

from es4r_toolkit.cli.options import Device, ModelFolder, Precision, Revision, TrustRemoteCode, keep_little
from es4r_toolkit.cli.printing import one_line
from es4r_toolkit.errors import ConfigError

TOKEN_VARIABLE = "ES4R_SERVE_TOKEN"


def serve(
    model: ModelFolder = None,
    host: Annotated[str, typer.Option(help="Address to listen at; another than this machine's is open to all.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8008,
    device: Device = "cpu",
    precision: Precision = "fp32",
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    running: Annotated[int, typer.Option(min=1, max=16, help="Replies at once.")] = 4,
    waiting: Annotated[int, typer.Option(min=0, help="Requests that may wait; more are told to come again.")] = 16,
    body_megabytes: Annotated[float, typer.Option(min=0.001, help="Largest request.")] = 32.0,
    turn_seconds: Annotated[float, typer.Option(min=0.1, help="Longest turn.")] = 120.0,
    reply_seconds: Annotated[float, typer.Option(min=0.1, help="From a whole request to the end of its reply.")] = 60.0,
    grace: Annotated[int, typer.Option(min=0, help="Seconds for replies under way when the server is stopped.")] = 10,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Another name by which clients call this server. May be given several times."
        ),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A web page's origin that may ask (CORS). May be given several times."),
    ] = None,
    token_variable: Annotated[
        str | None,
        typer.Option(
            help="Environment variable with a token that clients must send.",
            show_default=f"{TOKEN_VARIABLE}, where it is set",
        ),
    ] = None,
) -> None:
    """Answer dialogues over HTTP: JSON or recordings in; JSON, WAV or events as they come out.

    /docs describes the API and every error, /openapi.json does so for programs, /health and /ready are for those who
    watch over the server, /metrics is for Prometheus. Recordings are kept no longer than it takes to decode them.
    Ctrl-C stops the server; replies under way have --grace seconds to end.

    \b
    Example:
      es4r serve --port 8008
      curl -F 'dialogue={"turns": [{"role": "speaker"}]}' -F audio=@turn.wav http://127.0.0.1:8008/v1/replies
    """
    keep_little()
    try:
        from es4r_toolkit.serving.app import create_app
        from es4r_toolkit.serving.server import bind, server_of
    except ModuleNotFoundError as missing:
        raise ConfigError("es4r serve", f"needs {missing.name}", "pip install 'es4r-toolkit[serve]'") from None
    from es4r_toolkit.inference import EmpathyResponder
    from es4r_toolkit.serving.border import LOCAL, Border
    from es4r_toolkit.serving.limits import Limits

    limits = Limits(
        body_bytes=round(body_megabytes * 2**20),
        turn_seconds=turn_seconds,
        reply_seconds=reply_seconds,
        running=running,
        waiting=waiting,
    )
    # As clients write an address of IPv6.
    place = f"[{host}]" if ":" in host else host
    border = Border([*LOCAL, place, *(allowed_host or [])], allowed_origin or [], _token(token_variable))
    with bind(host, port) as bound:
        _warn(host, border.token)
        responder = EmpathyResponder.from_hparams(
            model,
            revision=revision,
            trust_remote_code=trust_remote_code,
            run_opts={"device": device, "precision": precision},
        )
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("es4r_toolkit.serving").setLevel(logging.INFO)
        # From here on who comes is kept waiting, not turned away.
        bound.listen()
        typer.echo(f"http://{place}:{bound.getsockname()[1]}/docs  (Ctrl-C stops)")
        server = server_of(create_app(responder, limits, border), grace)
        try:
            server.run(sockets=[bound])
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)


def _token(variable: str | None) -> str | None:
    token = os.environ.get(variable or TOKEN_VARIABLE) or None
    if variable is not None and token is None:
        raise ConfigError(variable, "is not set in the environment", "export the token in it")
    return token


def _warn(host: str, token: str | None) -> None:
    from es4r_toolkit.serving.server import is_local

    if is_local(host):
        return
    who = "whoever has the token" if token else "everybody, for there is no authentication"
    text = f"warning: {host} can be reached from other machines, by {who}; nothing is encrypted"
    typer.echo(one_line(text), err=True)
