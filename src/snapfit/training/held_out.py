"""What models say of rows that they have not seen, for a model that has seen them all: out-of-fold logits.

A training on every row holds out none to fit a decision rule on. The models of a cross-validation have each scored the
rows that they did not see, and a rule that is fitted on these is honest; the model on all rows is made alike, and of a
few more rows (as scikit-learn's `CalibratedClassifierCV(ensemble=False)` has it).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HeldOut:
    """Rows with what models that had not seen them said of them.

    logits: float [rows, n_outputs], at each model's own temperature; a regression's in the table's units.
    targets: of these rows, as `LabelSet.encode` gives them. metrics: of all such rows, which may be more.
    name: of the answer that uses this, and source: what models they were, for people.
    """

    logits: np.ndarray
    targets: np.ndarray
    metrics: dict[str, float]
    name: str
    source: str
