"""Prospect theory: how people value gains and losses, and how they weigh chances. Derived in lesson 01.

NumPy only, on purpose: lesson 01 opens in a second, without torch.
Source of every formula: Tversky and Kahneman, "Advances in Prospect Theory" (1992), which KTO cites; value is
their Eq. 5, weight their Eq. 6.
"""

import numpy as np
from numpy.typing import ArrayLike


def _finite(name: str, x: ArrayLike) -> np.ndarray:
    array = np.asarray(x, dtype=float)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} holds NaN or infinity; every entry must be a finite number")
    return array


def value(z: ArrayLike, alpha: float = 0.88, loss_aversion: float = 2.25, reference: float = 0.0) -> np.ndarray | float:
    """How good or bad an outcome feels, seen from a reference point.

    v(z) = (z - reference)^alpha for gains, -loss_aversion * (reference - z)^alpha for losses.

    Args:
        z: outcomes, any shape, in units of money (or of whatever is gained and lost).
        alpha: exponent in (0, 1]; 1 feels every unit alike, small values hardly feel size at all.
        loss_aversion: how many times a loss weighs more than an equal gain; positive.
        reference: the outcome that feels like nothing, in the units of z.

    Returns:
        Felt value, the shape of z (a float for a float). The defaults are the medians of 1992.

    Raises:
        ValueError: alpha outside (0, 1], loss_aversion not positive, NaN or infinity anywhere.
    """
    if not 0.0 < alpha <= 1.0:
        raise ValueError(f"alpha is {alpha}; it must lie in (0, 1]")
    if not (np.isfinite(loss_aversion) and loss_aversion > 0.0):
        raise ValueError(f"loss_aversion is {loss_aversion}; it must be a positive number (2.25 in 1992)")
    distance = _finite("z", z) - float(_finite("reference", reference))
    felt = np.abs(distance) ** alpha * np.where(distance < 0.0, -loss_aversion, 1.0)
    return float(felt) if felt.ndim == 0 else felt


def weight(p: ArrayLike, gamma: float = 0.61) -> np.ndarray | float:
    """The decision weight that a chance p gets: w(p) = p^gamma / (p^gamma + (1 - p)^gamma)^(1/gamma).

    Args:
        p: probabilities in [0, 1], any shape.
        gamma: curvature, positive; 1 leaves p alone. 0.61 is the median of 1992 for gains, 0.69 for losses.
            Below about 0.28 the curve is not monotone any more, so it stops making sense as a weight.

    Returns:
        Weights in [0, 1], the shape of p (a float for a float); w(0) = 0 and w(1) = 1.

    Raises:
        ValueError: p outside [0, 1], gamma not positive, NaN anywhere.
    """
    if not (np.isfinite(gamma) and gamma > 0.0):
        raise ValueError(f"gamma is {gamma}; it must be a positive number (0.61 for gains in 1992)")
    chance = _finite("p", p)
    if np.any((chance < 0.0) | (chance > 1.0)):
        raise ValueError("p must be a probability: every entry between 0 and 1")
    larger = np.maximum(chance, 1.0 - chance)
    ratio = np.minimum(chance, 1.0 - chance) / larger
    with np.errstate(over="ignore", under="ignore"):  # a tiny gamma: 2^(1/gamma) is infinite, the weight 0
        # The larger term is taken out of the root, so that a large gamma does not end in 0/0.
        weighted = chance**gamma / (larger * (1.0 + ratio**gamma) ** (1.0 / gamma))
    return float(weighted) if weighted.ndim == 0 else weighted


def _rank_weights(probabilities: np.ndarray, gamma: float) -> np.ndarray:
    """Decision weights of outcomes ordered from the most extreme inwards: w(reached so far) - w(before)."""
    reached = np.clip(np.cumsum(probabilities), 0.0, 1.0)
    return np.diff(np.asarray(weight(reached, gamma)), prepend=0.0)


def prospect_value(
    outcomes: ArrayLike,
    probabilities: ArrayLike,
    alpha: float = 0.88,
    loss_aversion: float = 2.25,
    reference: float = 0.0,
    gamma: float = 0.61,
    delta: float = 0.69,
    alpha_loss: float | None = None,
    cumulative: bool = True,
) -> float:
    """The felt value of a gamble: every outcome's value times its decision weight, added up.

    Args:
        outcomes: shape (n,), in units of money.
        probabilities: shape (n,), adding up to 1.
        alpha, loss_aversion, reference: as in `value`.
        gamma, delta: curvature of the probability weighting for gains and for losses.
        alpha_loss: exponent for losses where it differs from the one for gains; None means the same.
        cumulative: True weighs by rank, as in 1992 (the weight of "at least this good", by differences);
            False weighs each chance on its own, the separable form of 1979.

    Returns:
        The value of the gamble, in units of felt value: compare it with `value(sure_amount)`.

    Raises:
        ValueError: shapes that differ, an empty gamble, probabilities that are negative or do not add up
            to 1 (to 1e-9), and whatever `value` and `weight` refuse.
    """
    z, p = _finite("outcomes", outcomes), _finite("probabilities", probabilities)
    if z.ndim != 1 or z.shape != p.shape or z.size == 0:
        raise ValueError(f"outcomes {z.shape} and probabilities {p.shape} must be lists of one length >= 1")
    if np.any(p < 0.0) or abs(p.sum() - 1.0) > 1e-9:
        raise ValueError(f"probabilities must be >= 0 and add up to 1; they add up to {p.sum():.6g}")
    exponents = {True: alpha, False: alpha if alpha_loss is None else alpha_loss}
    total = 0.0
    for gain, curvature in ((True, gamma), (False, delta)):
        chosen = (z >= reference) if gain else (z < reference)
        order = np.argsort(-np.abs(z[chosen] - reference), kind="stable")  # most extreme first
        side_z, side_p = z[chosen][order], p[chosen][order]
        weights = _rank_weights(side_p, curvature) if cumulative else np.asarray(weight(side_p, curvature))
        total += float(np.sum(weights * value(side_z, exponents[gain], loss_aversion, reference)))
    return total
