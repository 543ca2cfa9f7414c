"""How much a text is like those that a classifier of one label was trained on; texts far from them are out of scope.

    max_probability   the highest score                                        Hendrycks and Gimpel 2017
    energy            log-sum-exp of the logits, divided by the temperature    Liu et al. 2020
    centroids         minus the squared distance of the text's vector to the nearest class's mean, in units of the
                      spread within classes (Mahalanobis; Lee et al. 2018, Podolskiy et al. 2021)

Higher is more alike. None of them needs a text that is out of scope: the limit is where a stated share of the held-out
texts, all of which are in scope, is kept.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np

from snapfit.core.errors import BadInput

Method = Literal["max_probability", "energy", "centroids"]
METHODS: tuple[Method, ...] = get_args(Method)


class Centroids(NamedTuple):
    """Class means of vectors, and what makes the spread within classes the same in all directions.

    whitening: float32 [width, width]; a vector times it is white. means: float32 [classes, width] of white vectors.
    """

    whitening: np.ndarray
    means: np.ndarray

    @property
    def width(self) -> int:
        """Of the vectors."""
        return int(self.whitening.shape[0])

    def alike(self, vectors: np.ndarray) -> np.ndarray:
        """float64 [n]: minus the squared distance of each vector [n, width] to the nearest mean.

        Raises BadInput for vectors of another width.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.width:
            found = f"vectors of shape {vectors.shape}"
            raise BadInput(found, f"[rows, {self.width}]", "use the model that the centroids were made with")
        white = vectors.astype(np.float64) @ self.whitening.astype(np.float64)
        means = self.means.astype(np.float64)
        squares = (white**2).sum(axis=1)[:, None] - 2.0 * white @ means.T + (means**2).sum(axis=1)
        distances: np.ndarray = np.maximum(squares.min(axis=1), 0.0)
        return -distances

    def tensors(self) -> dict[str, np.ndarray]:
        """By name, for a file."""
        return {"means": self.means, "whitening": self.whitening}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, np.ndarray], *, source: str) -> "Centroids":
        """What `tensors` gave. Raises BadInput for missing, further or wrong ones; source: what they were read from."""
        fix = "restore the file from where the bundle was made"
        if set(tensors) != {"means", "whitening"}:
            raise BadInput(f"{source} holds {', '.join(sorted(tensors)) or 'nothing'}", "means and whitening", fix)
        means, whitening = tensors["means"], tensors["whitening"]
        square = whitening.ndim == 2 and whitening.shape[0] == whitening.shape[1]
        if not square or means.ndim != 2 or means.shape[1] != len(whitening):
            raise BadInput(f"{source} holds {means.shape} and {whitening.shape}", "[k, width] and [width, width]", fix)
        if not all(one.dtype == np.float32 and np.isfinite(one).all() for one in (means, whitening)):
            raise BadInput(f"{source} holds numbers that are no finite float32", "finite float32", fix)
        return cls(whitening, means)


def fit_centroids(vectors: np.ndarray, targets: np.ndarray, n_classes: int) -> Centroids:
    """Centroids of labelled vectors: float [n, width], with classes int [n].

    The covariance within classes is shrunk towards a round one of the same size by width / (n + width), so that few
    rows can be whitened too; a class without rows has no mean and is left out. Raises BadInput for fewer than two rows.
    """
    if vectors.ndim != 2 or len(vectors) < 2 or targets.shape != (len(vectors),):
        found = f"vectors of shape {vectors.shape} and targets of shape {targets.shape}"
        raise BadInput(found, "two rows at least, and a target for each", "give more labelled rows")
    values = vectors.astype(np.float64)
    n, width = values.shape
    counts = np.bincount(targets, minlength=n_classes)
    sums = np.zeros((n_classes, width))
    np.add.at(sums, targets, values)
    means = sums / np.maximum(counts, 1)[:, None]
    apart = values - means[targets]
    covariance = apart.T @ apart / n
    share, size = width / (n + width), float(np.trace(covariance)) / width or 1.0
    covariance = (1.0 - share) * covariance + share * size * np.eye(width)
    spread, axes = np.linalg.eigh(covariance)
    whitening = axes / np.sqrt(np.maximum(spread, size * 1e-9))
    return Centroids(whitening.astype(np.float32), (means[counts > 0] @ whitening).astype(np.float32))


def energy(logits: np.ndarray, temperature: float) -> np.ndarray:
    """float64 [n]: log-sum-exp of logits [n, k] divided by the temperature."""
    values = logits.astype(np.float64) / temperature
    highest = values.max(axis=1)
    summed: np.ndarray = highest + np.log(np.exp(values - highest[:, None]).sum(axis=1))
    return summed
