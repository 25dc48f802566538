"""Temperature and rejection of a site, from windows whose class is known; and how well a measure tells the unknown.

N windows, K classes, D width of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from calib.labels import FEWEST, UNKNOWN, best_temperature, confusion_of, loss
from realtime.bundle import Bundle
from realtime.errors import UsageError
from realtime.rejection import Rejection, measure, prototypes_of


@dataclass(frozen=True)
class Fitted:
    """A bundle with a site's temperature, and what the windows of known class said.

    bundle: with the temperature. windows: of known class. before, after: mean negative log-likelihood at the
    bundle's temperature and at the fitted one; None where too few windows were known. confusion: (K, K) windows.
    """

    bundle: Bundle
    windows: int
    before: float | None
    after: float | None
    confusion: np.ndarray
    rejection: Rejection | None = None
    why: str = ""  # the temperature is the bundle's own, for people


def fit_temperature(bundle: Bundle, logits: np.ndarray, labels: np.ndarray) -> Fitted:
    """The bundle with the temperature that fits windows (N, K) of classes (N,); its own where fewer than FEWEST are
    known, or none of an action is.
    """
    known = labels != UNKNOWN
    nothing = bundle.classes.index(bundle.nothing)
    table = confusion_of(logits, labels, bundle.classes)
    number = int(known.sum())
    why = "only labelled actions can tell another" if not number else ""
    if 0 < number < FEWEST:
        why = f"only {number} windows are of known class, of the {FEWEST} that another would be fitted to"
    elif number and (labels[known] == nothing).all():
        why = "no window of an action is of known class"
    if why:
        return Fitted(bundle, number, None, None, table, why=why)
    temperature = best_temperature(logits[known], labels[known])
    before, after = (loss(logits[known], labels[known], one) for one in (bundle.temperature, temperature))
    return Fitted(replace(bundle, temperature=temperature), number, before, after, table)


def fit_rejection(
    fitted: Fitted, logits: np.ndarray, embedding: np.ndarray, labels: np.ndarray, kind: str, keep: float
) -> Fitted:
    """With the level that lets this share of the windows through that show an action and are called by it.

    Raises UsageError where fewer than FEWEST are, BundleError where the measure needs texts that the bundle lacks.
    """
    bundle = fitted.bundle
    nothing = bundle.classes.index(bundle.nothing)
    right = (labels != UNKNOWN) & (labels != nothing) & (logits.argmax(axis=1) == labels)
    if right.sum() < FEWEST:
        raise UsageError(
            f"rejection is fitted to windows of actions that are called rightly, and there are only "
            f"{int(right.sum())} of the {FEWEST} that it needs; give more labelled recordings, or --reject none"
        )
    prototypes = prototypes_of(bundle) if kind == "prototype" else None
    values = measure(kind, logits[right], embedding[right], nothing, prototypes)
    return replace(fitted, rejection=Rejection(kind, float(np.quantile(values, 1 - keep))))


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Chance that one of the known (n,) measures more than one of the unknown (m,), ties half. ValueError for none."""
    if not (len(known) and len(unknown)):
        raise ValueError(f"both kinds are needed, got {len(known)} known and {len(unknown)} unknown")
    ranks = rankdata(np.concatenate([known, unknown]))[: len(known)].sum()
    return float((ranks - len(known) * (len(known) + 1) / 2) / (len(known) * len(unknown)))


def passed(known: np.ndarray, unknown: np.ndarray, keep: float = 0.95) -> float:
    """Share of the unknown (m,) that pass the level which lets `keep` of the known (n,) through: FPR at 95 % TPR."""
    return float((unknown >= np.quantile(known, 1 - keep)).mean())
