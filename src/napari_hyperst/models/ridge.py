"""The ridge probe: a linear map from an encoder's features to expression, the baseline to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler


@dataclass(frozen=True)
class LinearMap:
    """An affine map: ``features @ weight.T + bias``.

    Attributes
    ----------
    weight
        (G, F).
    bias
        (G,).
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def __call__(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map (n, F) features to (n, G) expression."""
        return features @ self.weight.T + self.bias


def fit_ridge(features: NDArray[np.floating], expression: NDArray[np.floating], penalty: float) -> LinearMap:
    """Fit ridge regression on standardised features, with an intercept.

    Parameters
    ----------
    features
        (n, F).
    expression
        (n, G) on the panel's scale.
    penalty
        scikit-learn's alpha.
    """
    scaler = StandardScaler().fit(features)
    ridge = Ridge(alpha=penalty).fit(scaler.transform(features), expression)
    weight = np.atleast_2d(ridge.coef_) / scaler.scale_
    return LinearMap(weight, np.ravel(ridge.intercept_) - weight @ scaler.mean_)
