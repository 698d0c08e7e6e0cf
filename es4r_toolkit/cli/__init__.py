"""The command line: es4r validate, respond, evaluate and others.

Everything heavy is imported inside the commands, so that --help comes at once.
"""

from es4r_toolkit.cli.answering import respond
from es4r_toolkit.cli.app import app
from es4r_toolkit.cli.converting import convert_checkpoint, convert_kokoro, convert_styletts2
from es4r_toolkit.cli.demonstrating import demo
from es4r_toolkit.cli.judging import judge
from es4r_toolkit.cli.listening import listen, listen_report
from es4r_toolkit.cli.replaying import replay
from es4r_toolkit.cli.scoring import evaluate
from es4r_toolkit.cli.serving import serve
from es4r_toolkit.cli.timing import latency
from es4r_toolkit.cli.validating import validate

# In this order they stand in es4r --help.
for command in (
    validate,
    evaluate,
    judge,
    respond,
    demo,
    serve,
    listen,
    listen_report,
    latency,
    replay,
    convert_checkpoint,
    convert_styletts2,
    convert_kokoro,
):
    app.command()(command)


def main() -> None:
    """What the es4r script runs."""
    app()
