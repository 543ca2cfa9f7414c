"""One timed training of snapfit, for speed.py: prints a JSON line with rates, the step's parts and memory.

    python benchmarks/speed_worker.py '{"table": "train.csv", "encoder": "starter", "steps": 110, "settings": {}}'
    python benchmarks/speed_worker.py '"calibrate"'          only how fast one product is now

Steps up to `skip` are not timed; `profiled` more are looked at by part afterwards (see step_parts.py; 0: none). The
process is set up as the command does it, before torch is loaded.
"""

import json
import sys
import time
from typing import Any

from snapfit.core.process import settle_process

settle_process()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from harness import peak_rss_mib  # noqa: E402
from snapfit.core.interrupts import Stop  # noqa: E402
from snapfit.core.recipe import Recipe  # noqa: E402
from snapfit.nn.packing import ROUNDED  # noqa: E402
from snapfit.training import loop  # noqa: E402
from snapfit.training.assemble import layer_parameters  # noqa: E402
from snapfit.training.driver import Training  # noqa: E402
from snapfit.training.plan import make_plan  # noqa: E402
from snapfit.training.prepare import read_tables  # noqa: E402
from step_parts import StepParts  # noqa: E402

CALIBRATION = 1024


def calibrate() -> float:
    """GFLOP/s of one bf16 product now: what the machine gives at this moment."""
    left, right = (torch.ones(CALIBRATION, CALIBRATION, dtype=torch.bfloat16) for _ in range(2))
    return 2 * CALIBRATION**3 / product_seconds(left, right, repeats=60) / 1e9


def products_seconds(model: Any, tokens: int, dtype: torch.dtype) -> float:
    """Seconds that a step's products take alone, forwards and both gradients, for this many tokens.

    Of the shapes that the step has: under bf16 packing rounds the number of tokens up.
    """
    seconds = 0.0
    tokens += -tokens % ROUNDED if dtype == torch.bfloat16 else 0
    shapes: dict[tuple[int, int], int] = {}
    for module in model.encoder.modules():
        if isinstance(module, torch.nn.Linear):
            shape = (module.in_features, module.out_features)
            shapes[shape] = shapes.get(shape, 0) + 1
    for (width, out), count in shapes.items():
        x, weight, up = (torch.randn(s, dtype=dtype) for s in ((tokens, width), (out, width), (tokens, out)))
        seconds += count * sum(product_seconds(*pair) for pair in ((x, weight.t()), (up, weight), (up.t(), x)))
    return seconds


def product_seconds(left: torch.Tensor, right: torch.Tensor, repeats: int = 15) -> float:
    """The median of a product's times."""
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - start)
    return float(np.median(times[3:]))


class Watch:
    """Counts the seconds spent inside functions of the loop."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - start

        setattr(owner, name, timed)


def parts_seconds(training: Training, steps: int, step_seconds: float) -> dict[str, float]:
    """Seconds of a step by part: shares of `steps` more steps under the profiler, times the step that was timed."""
    if not steps:
        return {}
    with StepParts(training) as looked_at:
        return {part: share * step_seconds for part, share in looked_at.shares(steps).items()}


def main() -> None:
    """Train and tell."""
    asked = json.loads(sys.argv[1])
    if asked == "calibrate":
        print(json.dumps({"calibration": calibrate()}))
        return
    settings = {"model.encoder": asked["encoder"], "train.seed": 1, "train.epochs": 50.0, **asked.get("settings", {})}
    recipe = Recipe.from_dict({}).with_values(settings)
    tables = read_tables(asked["table"], None, None, recipe.data)
    plan = make_plan(tables, recipe, notify=lambda *_, **__: None)
    training = Training(plan, notify=lambda *_, **__: None, stop=Stop())
    watch = Watch()
    for name in ("group_norms", "clip_gradients", "_sound"):
        watch.wrap(loop, name)
    for name in ("step", "zero_grad"):
        watch.wrap(training.assembly.optimizer, name)
    tokens, rows, seconds = 0, 0, []
    steps, skip = asked["steps"], asked.get("skip", 10)
    start = time.perf_counter()
    for step in training._steps():
        now = time.perf_counter()
        if step.number > skip:
            seconds.append(now - start)
            tokens, rows = tokens + step.tokens, rows + step.rows
        else:
            watch.seconds = 0.0
        start = time.perf_counter()
        if step.number >= steps:
            break
    total = sum(seconds)
    # Before more steps are looked at, which take time and memory of their own.
    optimizer, memory = watch.seconds, peak_rss_mib()
    parts = parts_seconds(training, asked.get("profiled", 15), total / len(seconds))
    dtype = torch.bfloat16 if plan.recipe.train.precision == "bf16" else torch.float32
    bare = products_seconds(training.assembly.model, round(tokens / len(seconds)), dtype)
    print(
        json.dumps(
            {
                "real_tokens_per_s": tokens / total,
                "samples_per_s": rows / total,
                "step_seconds": total / len(seconds),
                "tokens_per_step": tokens / len(seconds),
                "parts": parts,
                "optimizer_share": optimizer / total,
                "roofline_share": bare / (total / len(seconds)),
                "peak_rss_mib": memory,
                "precision": plan.recipe.train.precision,
                "layer_parameters": layer_parameters(training.assembly.model),
                "engine": list(training.assembly.engine),
            }
        )
    )


if __name__ == "__main__":
    main()
