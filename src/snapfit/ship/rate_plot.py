"""The picture of a range test: loss over rate, with the rates that the curve suggests. Needs matplotlib."""

import os
from pathlib import Path

from snapfit.core.errors import BadInput, MissingExtra
from snapfit.core.files import open_atomic
from snapfit.training.rate_curve import RateCurve, Suggestion

FORMATS = ("svg", "png", "pdf")
_NO_DATE = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}
"""What keeps the time of drawing out of the file, so that the same test gives the same bytes."""


def check_plot(path: str | Path) -> Path:
    """The file that a plot goes to, proven before any work.

    Raises BadInput for another suffix than those of FORMATS, a folder that is missing or cannot be written to, and a
    name that is taken by something else than a file; MissingExtra without matplotlib.
    """
    target = Path(path)
    if target.suffix.lower().removeprefix(".") not in FORMATS:
        kinds = ", ".join(f".{name}" for name in FORMATS)
        raise BadInput(f"the plot {target}", f"a file name that ends in one of {kinds}", "--plot rates.svg")
    folder = Path(os.path.realpath(target)).parent
    if not folder.is_dir():
        found = f"the plot {target}: there is no folder {target.parent}"
        raise BadInput(found, "a file in a folder that exists", f"mkdir -p {target.parent}")
    if target.exists() and not target.is_file():
        raise BadInput(f"the plot {target}: that is no file", "a file's name", "choose another name for --plot")
    if not os.access(folder, os.W_OK) or (target.exists() and not os.access(target, os.W_OK)):
        raise BadInput(f"the plot {target} cannot be written", "a file that may be written", "choose another --plot")
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("plot", "matplotlib") from error
    return target


def write_plot(path: Path, curve: RateCurve, suggestion: Suggestion, recipe_rate: float) -> None:
    """Draw a range test into a file of the kind that its suffix says. Raises WorkFailed when it cannot be written."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    smoothed = curve.smoothed()
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.plot(curve.rates, curve.losses, ".", color="0.75", label="each step")
    axes.plot(curve.rates, smoothed, "-", color="C0", label="smoothed")
    marks = (("steepest", suggestion.steepest, "C1", "--"), ("least", suggestion.least, "C2", "--"))
    for name, rate, color, style in (*marks, ("recipe", recipe_rate, "0.3", ":")):
        if rate is not None:
            axes.axvline(rate, color=color, linestyle=style, label=f"{name}: {rate:.1e}")
    room = 0.25 * ((max(smoothed) - min(smoothed)) or 1.0)
    axes.set_ylim(min(smoothed) - room, max(smoothed) + room)  # steps that ran away would flatten all the rest
    axes.set_xlabel("learning rate (optim.lr)")
    axes.set_ylabel("training loss")
    axes.legend()
    kind = path.suffix.lower().removeprefix(".")
    with rc_context({"svg.hashsalt": "snapfit"}), open_atomic(path) as file:
        figure.savefig(file, format=kind, dpi=150, metadata=_NO_DATE[kind])
