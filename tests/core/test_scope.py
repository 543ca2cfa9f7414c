"""Scope against closed forms: Mahalanobis distances by scipy, energies, and what is put into files."""

import numpy as np
import pytest
import scipy.special
from scipy.spatial.distance import mahalanobis
from sklearn.metrics import roc_auc_score

from snapfit.core.errors import BadInput
from snapfit.core.scope import Centroids, energy, fit_centroids


def drawn(n: int, *, width: int = 6, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of classes that are far apart, with a spread that is no ball."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(99).normal(size=(classes, width)) * 6
    targets = np.arange(n) % classes
    spread = np.diag(np.linspace(0.2, 2.0, width))
    return (means[targets] + rng.normal(size=(n, width)) @ spread).astype(np.float32), targets


def test_distances_are_mahalanobis() -> None:
    vectors, targets = drawn(300)
    made = fit_centroids(vectors, targets, 3)
    values = vectors.astype(float)
    means = np.stack([values[targets == c].mean(axis=0) for c in range(3)])
    covariance = (values - means[targets]).T @ (values - means[targets]) / 300
    share = 6 / 306
    covariance = (1 - share) * covariance + share * np.trace(covariance) / 6 * np.eye(6)
    inverse = np.linalg.inv(covariance)
    expected = [-min(mahalanobis(row, mean, inverse) ** 2 for mean in means) for row in values[:40]]
    np.testing.assert_allclose(made.alike(vectors[:40]), expected, rtol=1e-3)


def test_what_is_far_from_all_classes_is_told_apart() -> None:
    made = fit_centroids(*drawn(300), 3)
    inside, outside = drawn(200, seed=1)[0], np.random.default_rng(2).normal(size=(200, 6)) * 6
    likeness = np.concatenate([made.alike(inside), made.alike(outside)])
    assert roc_auc_score([1] * 200 + [0] * 200, likeness) > 0.95


def test_few_rows_and_classes_without_rows() -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 30)).astype(np.float32)
    made = fit_centroids(vectors, np.array([0, 0, 4, 4]), 6)
    assert made.means.shape == (2, 30)
    assert np.isfinite(made.alike(vectors)).all()
    same = fit_centroids(np.ones((3, 4), np.float32), np.zeros(3, int), 1)  # no spread at all
    assert np.isfinite(same.alike(np.ones((1, 4)))).all()


def test_energy_is_log_sum_exp() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [1000.0, 999.0, -5.0], [-1000.0, -1001.0, -1002.0]])
    np.testing.assert_allclose(energy(logits, 1.0), scipy.special.logsumexp(logits, axis=1))
    np.testing.assert_allclose(energy(logits, 0.5), scipy.special.logsumexp(logits / 0.5, axis=1))


def test_there_and_back() -> None:
    made = fit_centroids(*drawn(60), 3)
    again = Centroids.of_tensors(made.tensors(), source="a file")
    np.testing.assert_array_equal(again.alike(drawn(9)[0]), made.alike(drawn(9)[0]))


@pytest.mark.parametrize(
    "change",
    [
        {"more": np.zeros(1, np.float32)},
        {"means": np.zeros((3, 5), np.float32)},
        {"means": np.zeros(6, np.float32)},
        {"whitening": np.zeros((6, 5), np.float32)},
        {"means": np.zeros((3, 6))},
        {"means": np.full((3, 6), np.nan, np.float32)},
    ],
)
def test_files_that_cannot_be(change: dict[str, np.ndarray]) -> None:
    tensors = fit_centroids(*drawn(60), 3).tensors() | change
    with pytest.raises(BadInput, match="a file holds"):
        Centroids.of_tensors(tensors, source="a file")


def test_rows_that_do_not_fit() -> None:
    made = fit_centroids(*drawn(60), 3)
    with pytest.raises(BadInput, match=r"\[rows, 6\]"):
        made.alike(np.zeros((2, 5)))
    for vectors, targets in ((np.zeros((1, 3)), np.zeros(1, int)), (np.zeros((3, 3)), np.zeros(2, int))):
        with pytest.raises(BadInput, match="vectors of shape"):
            fit_centroids(vectors, targets, 2)
