"""`snapfit ensemble`: what a finished run left, alone and combined, and which of it ships."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from snapfit.cli.answers import write_json_line
from snapfit.cli.console import Console, calm_libraries
from snapfit.cli.lines import metrics_lines, verdict_lines


def ensemble(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run that kept members.")],
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The run's training table, where it is elsewhere now.")
    ] = None,
    valid: Annotated[Path | None, typer.Option(metavar="FILE", help="Its validation table, likewise.")] = None,
    test: Annotated[Path | None, typer.Option(metavar="FILE", help="Its test table, likewise.")] = None,
    student: Annotated[
        bool, typer.Option("--student", help="Train one model on what the members know together.")
    ] = False,
    unlabelled: Annotated[
        Path | None, typer.Option(metavar="FILE", help="More texts for the student, without labels.")
    ] = None,
    with_control: Annotated[
        bool, typer.Option("--with-control", help="Train a single run of equal compute beside it, to compare with.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object as the last line; all else goes to standard error."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only errors and the result.")] = False,
) -> int:
    """Weigh what RUN left: its best weights, its members, soups and means of them; its bundle holds the chosen one.

    A run keeps members where its recipe asks for some (--set ensemble.members=6, and ensemble.rounds=3 for short cycles
    at its end). What was trained here is kept in RUN and taken up when the command is given again.
    """
    calm_libraries()
    import snapfit

    with Console(sys.stderr if as_json else sys.stdout, quiet=quiet) as console:
        result = snapfit.ensemble(
            run,
            table=table,
            valid=valid,
            test=test,
            student=student,
            unlabelled=unlabelled,
            with_control=with_control,
            listener=console,
        )
        if quiet and not as_json and result.verdict is not None:
            console.result("verdict", verdict_lines(result.verdict))
        if not (as_json and quiet):
            console.result("metrics", metrics_lines(result.metrics))
            console.result("bundle", str(result.bundle))
    if as_json:
        write_json_line(result.to_dict())
    return 0
