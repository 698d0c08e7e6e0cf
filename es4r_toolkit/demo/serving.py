"""Serving the page: on this machine alone unless told otherwise, with a folder for uploads that goes when it ends."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.errors import BackendError, ConfigError, DialogueError

if TYPE_CHECKING:
    from es4r_toolkit.data.records import Rejection
    from es4r_toolkit.demo.models import OfferedModel
    from es4r_toolkit.dialogue import Dialogue

# Three real dialogues, where a checkout has them beside it.
EXAMPLES = Path("shared") / "data" / "avamerg_demo" / "dialogues.jsonl"
HERE = "127.0.0.1"
WAITING = 64  # turns that may wait for the model
VISITS = 1000  # that are held at once; who was silent longest is forgotten first


def check_installed() -> None:
    """Raise BackendError where gradio is missing."""
    if find_spec("gradio") is None:
        raise BackendError("gradio", "is not installed", "pip install 'es4r-toolkit[demo]'")


def find_examples(manifest: Path | None) -> tuple[list[Dialogue], list[Rejection]]:
    """The dialogues of a manifest, or of the one that a checkout has beside it; and what was left out.

    Raises
    ------
    DialogueError
        If the manifest is named and cannot be read.
    """
    if manifest is None:
        manifest = next((up / EXAMPLES for up in (Path(), Path("..")) if (up / EXAMPLES).is_file()), None)
    if manifest is None:
        return [], []
    report = read_manifest(manifest, decode=True)
    dialogues = [dialogue for dialogue in report.dialogues if dialogue.history[-1].is_speaker]
    if report.dialogues and not dialogues:
        raise DialogueError(manifest, "has no dialogue that ends with the speaker", "leave the last reply to the model")
    return dialogues, report.rejected


@contextmanager
def serving(
    models: Sequence[OfferedModel], examples: Sequence[Dialogue] = (), host: str = HERE, port: int | None = None
) -> Iterator[str]:
    """Serve the page while the block runs; gives its address.

    Arguments
    ---------
    models, examples
        As for ``build_page``.
    host : str
        Of this machine; the default is reached from it alone.
    port : int, optional
        The first free one from 7860 on, where left out.

    Raises
    ------
    BackendError
        If gradio is missing.
    ConfigError
        If the host or port cannot be had.
    """
    check_installed()
    with tempfile.TemporaryDirectory(prefix="es4r-demo-") as folder, _environment(GRADIO_TEMP_DIR=folder):
        from starlette.middleware import Middleware

        from es4r_toolkit.demo.guarding import Border
        from es4r_toolkit.demo.page import build_page, style, theme
        from es4r_toolkit.demo.recording import LIMITS

        page = build_page(models, examples)
        border = Middleware(
            Border, max_bytes=LIMITS.max_bytes, hosts=("localhost", host.lower(), socket.gethostname().lower())
        )
        page.queue(api_open=False, max_size=WAITING, default_concurrency_limit=None)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                show_error=False,
                share=False,
                max_file_size=LIMITS.max_bytes,
                app_kwargs={"middleware": [border]},
                state_session_capacity=VISITS,
                theme=theme(),
                css=style(),
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                mcp_server=False,
                ssr_mode=False,
                pwa=False,
            )
        except (OSError, ValueError) as fault:
            wanted = f"{host}:{port or '7860 to 7959'}"
            problem = "cannot be served: it is no address of this machine, or its port is taken"
            raise ConfigError(wanted, problem, "choose another --host or --port") from fault
        try:
            yield address
        finally:
            page.close(verbose=False)


@contextmanager
def _environment(**wanted: str) -> Iterator[None]:
    """What gradio takes from the environment alone; and no word of this to anybody."""
    wanted = {**wanted, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
