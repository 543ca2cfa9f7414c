"""The command `snapfit`: parses, runs a command, and turns every outcome into a message and an exit code.

    0    done
    1    the work failed, or a file could not be written
    2    bad usage or bad input; the message says what was found, what was expected, and the fix
    130  interrupted by Ctrl-C; 143 when told to end by SIGTERM or SIGUSR1

Commands import what is heavy only when they run, so help and usage errors come at once.
"""

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from snapfit.cli.check import check
from snapfit.cli.decide import decide
from snapfit.cli.demo import demo
from snapfit.cli.ensemble import ensemble
from snapfit.cli.evaluate import evaluate
from snapfit.cli.explain import explain
from snapfit.cli.find_lr import find_lr
from snapfit.cli.inspect import inspect
from snapfit.cli.predict import predict
from snapfit.cli.train import train
from snapfit.core.errors import Interrupted, MissingExtra, SnapfitError, visible
from snapfit.core.interrupts import StopRequest, exit_code
from snapfit.core.process import settle_process
from snapfit.version import __version__

_EXTRA_OF = {
    **dict.fromkeys(("torch", "transformers", "safetensors", "huggingface_hub"), "train"),
    "matplotlib": "plot",
    **dict.fromkeys(("rensa", "rapidfuzz"), "check"),
    "jinja2": "report",
}
_BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports a reader that went away


class _Commands(TyperGroup):
    """The group of commands; Ctrl-C and a reader that went away are outcomes like any other."""

    def invoke(self, ctx: Any) -> Any:
        with StopRequest() as stop:
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt as error:
                raise Interrupted("interrupted", exit_code(stop.signal_number)) from error
            except BrokenPipeError:  # here, because typer would make it a failure
                _abandon_output()
                return _BROKEN_PIPE


app = typer.Typer(
    name="snapfit",
    cls=_Commands,
    help="Fine-tune a BERT-family encoder into a text classifier you can ship.",
    epilog="Start with: snapfit demo --quick",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _command in (check, train, ensemble, find_lr, decide, evaluate, predict, explain, inspect, demo):
    app.command()(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"snapfit {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors are printed on standard error.

    argv: the arguments without the program's name; default those of the process.
    What is not an error on purpose (a defect) is let through with its traceback.
    """
    _prepare_streams()
    settle_process()
    code = _run(sys.argv[1:] if argv is None else list(argv))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_output()
        return _BROKEN_PIPE
    except OSError as error:
        _abandon_output()
        return code or _fail(_in_words(error), 1)
    return code


def _run(arguments: list[str]) -> int:
    try:
        outcome = typer.main.get_command(app)(arguments, prog_name="snapfit", standalone_mode=False)
    except SnapfitError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        return _fail(_in_words(error), 1)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get(error.name or "")
        if extra is None:
            raise
        return _fail(str(MissingExtra(extra, str(error.name))), MissingExtra.exit_code)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return _usage_error(error)
    return outcome if isinstance(outcome, int) else 0


def _usage_error(error: Any) -> int:
    """A mistake in the command line; typer's class for it depends on typer's version, its methods do not."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "snapfit"
    message = " ".join(error.format_message().split())
    return _fail(f"{message}\n  fix: see {command} --help", int(error.exit_code))


def _in_words(error: OSError) -> str:
    place = f": {error.filename}" if error.filename is not None else ""
    return f"{error.strerror or error}{place}"


def _fail(message: str, code: int) -> int:
    print("\n".join(map(visible, f"error: {message}".split("\n"))), file=sys.stderr)
    return code


def _prepare_streams() -> None:
    """Streams that can always be written to: a closed one goes nowhere, an odd encoding gets escapes."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _abandon_output() -> None:
    """Nobody can take the output any more: send the rest nowhere, so that Python's own flush at exit
    succeeds.
    """
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        sys.stdout = io.StringIO()


if __name__ == "__main__":
    sys.exit(main())
