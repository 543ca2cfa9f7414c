"""The model card: what a bundle's README.md says about it."""

import re

from snapfit.core.errors import visible
from snapfit.core.rule_words import rule_lines
from snapfit.runtime.bundle import BundleInfo


def model_card(info: BundleInfo, *, reasons: dict[str, str]) -> str:
    """Markdown that tells a stranger what the model is, how it was made, how good it is, and how to run it.

    info: the bundle's snapfit.json. reasons: why each automatic setting became what it is.
    """
    labels = info.labels
    kind = {"single": "one label a text", "multi": "any number of labels a text", "regression": "a number"}
    lines = [
        "# Text classifier",
        "",
        f"Task: {kind[labels['task']]}, from {'two texts' if info.pair else 'one text'}. "
        f"Encoder: {_code(info.recipe['model']['encoder'])}. Made with snapfit {info.versions.get('snapfit', '')}.",
        "",
        "## Use",
        "",
        "```python",
        "import snapfit",
        "",
        'classifier = snapfit.load("path/to/this/folder")',
        f"classifier.predict([{_sample(info)}])",
        "```",
        "",
        _compatibility(info),
        "",
        "## Results",
        "",
        *_metrics_table(info.metrics),
        "",
        *_decisions(info),
        "## Labels",
        "",
        ", ".join(map(_code, labels["names"])),
        "",
        "## How it was made",
        "",
        *_answer(info),
        f"- pooling `{info.pooling}`: {info.pooling_reason}",
        f"- length: at most {info.max_tokens} tokens; {info.lengths.in_words(info.max_tokens)}",
        *[f"- `{key}` = `{_value(info.recipe, key)}`: {reason}" for key, reason in reasons.items()],
        "",
        "The whole recipe and the identity of the data are in `snapfit.json`.",
        "",
    ]
    return "\n".join(lines)


def _code(name: str) -> str:
    """A name as code in Markdown, whatever is in it."""
    fence = "`" * (1 + max(map(len, re.findall("`+", name)), default=0))
    inner = f" {visible(name)} " if name.startswith("`") or name.endswith("`") else visible(name)
    return f"{fence}{inner}{fence}"


def card_decided_anew(card: str, info: BundleInfo) -> str:
    """A bundle's card with other results and decisions; what else it says stays.

    Where it does not have the parts that `model_card` writes, it is written anew, without reasons.
    """
    head, results, rest = card.partition("\n## Results\n")
    _, labels, tail = rest.partition("\n## Labels\n")
    if not results or not labels:
        return model_card(info, reasons={})
    middle = "\n".join(["", *_metrics_table(info.metrics), "", *_decisions(info)])
    return f"{head}{results}{middle}{labels.removeprefix(chr(10))}{tail}"


def _sample(info: BundleInfo) -> str:
    return '("a text", "another text")' if info.pair else '"a text"'


def _compatibility(info: BundleInfo) -> str:
    n_models = len(info.members or ())
    longer = ""
    if not info.lengths.cuts_at_one_end:
        longer = (
            f" Of texts of more than {info.max_tokens} tokens it gives others: it reads their first tokens alone, "
            f"while snapfit reads them by the length policy `{info.lengths.policy}`."
        )
    if info.head == "native" and n_models:
        return (
            f"The answer needs snapfit: it is made of {n_models} models. Plain transformers opens this folder too, but "
            "only the first of them: `AutoModelForSequenceClassification.from_pretrained(folder)` gives that one's "
            f"logits, not the answer.{longer}"
        )
    if info.head == "native":
        return (
            "Plain transformers opens this folder too: "
            f"`AutoModelForSequenceClassification.from_pretrained(folder)` gives the same logits.{longer}"
        )
    return (
        f"The head pools with `{info.pooling}`, which transformers does not have: this bundle needs snapfit. "
        "Train with `--set model.pooling=native` for one that plain transformers opens."
    )


def _answer(info: BundleInfo) -> list[str]:
    """What the scores are made of, a line of the list, where that is more than one model as it came."""
    if not info.made_of and not info.members:
        return []
    what = "the scores of one model"
    if info.members:
        parts = ", ".join(f"{one['share']:.3g} at {one['temperature']:.3g}" for one in info.members)
        what = f"the mean of the scores of {len(info.members)} models (shares and temperatures: {parts})"
    name, rule = (str(info.made_of.get(key, "")) for key in ("name", "rule"))
    named = f"`{name}`, " if name else ""
    return [f"- the answer is {named}{what}, at temperature {info.temperature:.3g}{f': {rule}' if rule else ''}"]


def _decisions(info: BundleInfo) -> list[str]:
    """How answers are made of logits, and how good that is."""
    lines = rule_lines(info.task, info.rule_values, info.decided)
    return ["## Decisions", "", *[f"- {visible(line)}" for line in lines], ""] if lines else []


def _metrics_table(metrics: dict[str, dict[str, float]]) -> list[str]:
    if not metrics:
        return ["No split was held out, so nothing was measured."]
    names = list(dict.fromkeys(name for split in metrics.values() for name in split))
    rows = [f"| {split} | " + " | ".join(_cell(values, n) for n in names) + " |" for split, values in metrics.items()]
    return ["| split | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|", *rows]


def _cell(values: dict[str, float], name: str) -> str:
    return f"{values[name]:.4f}" if name in values else ""


def _value(recipe: dict[str, dict[str, object]], key: str) -> object:
    section, field = key.split(".")
    return recipe[section][field]
