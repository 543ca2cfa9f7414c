"""The head of an own bundle, kept for further training: labels are matched by name."""

from pathlib import Path

import torch

from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.nn.classifier import Classifier
from snapfit.nn.weights import read_weights
from snapfit.runtime.bundle import Bundle


def keep_head(model: Classifier, folder: Path, label_set: LabelSet) -> str:
    """Put the head of the bundle in `folder` into a model whose encoder it also was; returns what was kept, in words.

    Outputs of labels that the bundle knows are taken over, those of new labels stay fresh. A regression's output is
    brought from the units of its table to the standardised targets that training goes by. Of a bundle in which several
    models answer it is the first one's, as the encoder is.
    Raises BadInput for a folder that is no bundle, and for one of another task or pooling.
    """
    bundle = Bundle.open(folder, verify=False)
    for what, theirs, ours in (
        ("task", bundle.info.task, label_set.task),
        ("pooling", bundle.info.pooling, model.pooling),
    ):
        if theirs != ours:
            raise BadInput(
                f"the {what} of {folder} is {theirs!r}, here it is {ours!r}",
                f"the same {what}, to keep its head",
                f"--encoder {folder} instead of --continue-from, which starts with a fresh head",
            )
    old_names = bundle.label_set.names
    regression = label_set.task == "regression"
    shared = [(i, old_names.index(name)) for i, name in enumerate(label_set.names) if name in old_names]
    known = [(0, 0)] if regression else shared
    state = read_weights(folder)
    outputs = {id(parameter) for parameter in model.output.parameters()}
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            unknown = name.startswith("head.window_score.") and name not in state  # the bundle pools windows otherwise
            if name.startswith(f"{model.encoder_prefix}.") or unknown:
                continue
            if id(tensor) not in outputs:
                tensor.copy_(state[name])
            for new, old in known if id(tensor) in outputs else ():
                tensor[new] = state[name][old]
    if regression:
        scale = label_set.target_scale
        model.rescale_output(scale=1.0 / scale, shift=-label_set.target_mean / scale)
        return f"the head of {folder} is kept"
    fresh = len(label_set.names) - len(known)
    left = len(old_names) - len(known)
    return f"of the head of {folder} {len(known)} labels are kept, {fresh} are new, {left} are left out"
