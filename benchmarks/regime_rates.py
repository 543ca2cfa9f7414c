"""The table `rates`: rates by depth and the head's rate, at one geometric mean over the encoder.

The rule of `training/param_groups.py`: with a top rate t, a ratio r and L layers, layer d (from 1) learns at
t * r ** ((L - d) / (L - 1)), and the embeddings, depth 0, at the bottom layer's rate t * r. Over these L + 1 depths the
exponents of r add up to L / 2 (layers) + 1 (embeddings), so the geometric mean of the rates is

    t * r ** e    with    e = (L / 2 + 1) / (L + 1) = (L + 2) / (2 * (L + 1))

and a top rate of t0 * (r0 / r) ** e keeps the mean that t0 has at r0. The head learns at head_lr_factor * t.
"""

from regime_table import Record
from regime_training import Cell, TrainingTable
from subsets import CLINC_HALF, CLINC_QUICK

RATIOS = (1.0, 0.57, 0.25, 0.09)
HEAD_FACTORS = (1.0, 10.0, 50.0)
DEFAULT_RATE, DEFAULT_RATIO, LAYERS = 2e-4, 0.5, 6
"""What the default recipe comes to with the starter encoder; each run of the default cell is held against it."""
ABOUT = """`optim.layer_ratio` (the bottom layer's rate over the top layer's) by `optim.head_lr_factor` (the head's rate
over the top layer's), all with the geometric mean of rates over the encoder that the default recipe has. With a top
rate t, a ratio r and L layers, layer d learns at t r^((L - d) / (L - 1)) and the embeddings at t r; the mean over these
L + 1 depths is t r^e with e = (L + 2) / (2 (L + 1)), so `optim.lr` is t0 (r0 / r)^e, with t0 and r0 the default
recipe's: as the ratio falls, the top layer and with it the head learn faster. No early stop; the weights are those that
the development split chose. Compared as schedules are."""


def mean_exponent(layers: int) -> float:
    """The power of the ratio in the geometric mean of an encoder's rates, embeddings included; of `layers` layers."""
    return (layers + 2) / (2 * (layers + 1)) if layers > 1 else 0.0


def mean_rate(top_rate: float, ratio: float, layers: int) -> float:
    """The geometric mean of the rates of embeddings and layers."""
    return float(top_rate * ratio ** mean_exponent(layers))


def matched_rate(ratio: float, *, rate: float, at_ratio: float, layers: int) -> float:
    """The top rate with which `ratio` has the geometric mean that `rate` has with the ratio `at_ratio`."""
    return mean_rate(rate, at_ratio, layers) / ratio ** mean_exponent(layers)


def cells() -> list[Cell]:
    """The default recipe, and the grid."""
    grid = [
        Cell(
            f"ratio {ratio:g}, head x{factor:g}",
            {
                "optim.layer_ratio": ratio,
                "optim.head_lr_factor": factor,
                "optim.lr": matched_rate(ratio, rate=DEFAULT_RATE, at_ratio=DEFAULT_RATIO, layers=LAYERS),
            },
        )
        for ratio in RATIOS
        for factor in HEAD_FACTORS
    ]
    return [Cell("recipe", default=True), *grid]


def check_default(record: Record) -> None:
    """RuntimeError where the default recipe has other rates than the grid was matched to."""
    found = (record["recipe"]["optim.lr"], record["recipe"]["optim.layer_ratio"], record["layers"])
    if found != (DEFAULT_RATE, DEFAULT_RATIO, LAYERS):
        raise RuntimeError(f"the default recipe has rate, ratio and layers {found}: change those of regime_rates.py")


def told(record: Record) -> str:
    """The rates of a run: of the top layer, the bottom one, and the head."""
    top, ratio, factor = (record["recipe"][f"optim.{key}"] for key in ("lr", "layer_ratio", "head_lr_factor"))
    return f"{top:.2g}, {top * ratio:.2g}, {top * factor:.2g}"


TABLE = TrainingTable(
    "rates",
    title="Rates by depth, and the head's",
    about=ABOUT,
    kind="rates",
    cells=cells,
    sets=(CLINC_HALF,),
    quick_sets=(CLINC_QUICK,),
    quick_cells=("ratio 1, head x1", "ratio 0.09, head x50"),
    told=("top, bottom, head", told),
    check=check_default,
)
