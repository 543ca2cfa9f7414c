"""A training loop as it is copied from a tutorial: what an engineer without a library has, timed for speed.py.

    python benchmarks/plain_torch.py --train train.csv --encoder DIR_OR_NAME --max-steps 110
    python benchmarks/plain_torch.py ... --bf16          the same under autocast

transformers' model and tokenizer, torch's DataLoader in random order, rows padded to the longest of their batch, one
rate for all parameters, clipped gradients, float32. Prints a JSON line; the first ten steps are not timed, padding is
not counted. Files: .csv (quoted), .tsv (header, unquoted); columns `text` or `sentence1` and `sentence2`, and `label`.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from harness import peak_rss_mib

SKIP = 10
TEXTS = ("text", "sentence1", "sentence2")


def read(path: Path) -> list[dict[str, str]]:
    """A table's rows."""
    quoted: dict[str, Any] = {} if path.suffix == ".csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, **quoted))


def encode(rows: list[dict[str, str]], tokenizer: Any, max_length: int) -> tuple[list[dict[str, Any]], int]:
    """Each row's token ids and label, and how many labels there are."""
    columns = [[row[name] for row in rows] for name in TEXTS if name in rows[0]]
    tokens = tokenizer(*columns, truncation=True, max_length=max_length)
    names = sorted({row["label"] for row in rows})
    index = {name: i for i, name in enumerate(names)}
    examples = [
        {**{key: values[i] for key, values in tokens.items()}, "labels": index[row["label"]]}
        for i, row in enumerate(rows)
    ]
    return examples, len(names)


def padded(tokenizer: Any) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Joins rows to a batch, padded to its longest."""

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return dict(tokenizer.pad(rows, return_tensors="pt"))

    return collate


def without_end(loader: Any) -> Iterator[dict[str, torch.Tensor]]:
    """The loader's batches, epoch after epoch."""
    while True:
        yield from loader


def train(model: Any, loader: Any, *, lr: float, steps: int, bf16: bool) -> dict[str, float]:
    """The loop: rates over all steps but the first ten."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    model.train()
    tokens, rows = 0, 0
    start = time.perf_counter()
    for step, batch in enumerate(without_end(loader), start=1):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step > SKIP:
            tokens, rows = tokens + int(batch["attention_mask"].sum()), rows + len(batch["labels"])
        if step == SKIP:
            start = time.perf_counter()
        if step == steps:
            break
    seconds = time.perf_counter() - start
    return {
        "real_tokens_per_s": tokens / seconds,
        "samples_per_s": rows / seconds,
        "step_seconds": seconds / (steps - SKIP),
        "tokens_per_step": tokens / (steps - SKIP),
    }


def main() -> None:
    """Train and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--max-steps", type=int, default=110)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    if arguments.max_steps <= SKIP:
        parser.error(f"--max-steps must be above {SKIP}, which are not timed")
    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.encoder)
    examples, n_labels = encode(read(arguments.train), tokenizer, arguments.max_length)
    model = AutoModelForSequenceClassification.from_pretrained(
        arguments.encoder, num_labels=n_labels, dtype=torch.float32
    )
    loader: Any = DataLoader(
        examples,  # type: ignore[arg-type]  # a list is a dataset
        batch_size=arguments.batch,
        shuffle=True,
        collate_fn=padded(tokenizer),
    )
    rates = train(model, loader, lr=arguments.lr, steps=arguments.max_steps, bf16=arguments.bf16)
    told = {
        "system": "plain PyTorch",
        "precision": "bf16" if arguments.bf16 else "fp32",
        "batch": arguments.batch,
        "lr": arguments.lr,
        "seed": arguments.seed,
        **rates,
        "peak_rss_mib": peak_rss_mib(),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
