"""What the model was never taught: how a window is told from those of known actions, and what becomes of it.

A softmax answers with some action whatever it is shown. Each measure here gives one number a window, higher where the
window looks more like a known action; one below the level that was fitted at the site counts as "nothing".
N windows, K classes, D width of the embedding.

softmax    largest probability among the actions (Hendrycks and Gimpel 2017); what the rest is compared with
logit      the largest logit of an action (Hendrycks et al. 2022): separates unknown actions best of these
margin     the largest logit of an action minus the next largest of any class
energy     log of the sum of the actions' exponentiated logits (Liu et al. 2020)
odds       energy minus the logit of "nothing": how much likelier any action is than none
prototype  largest cosine of the embedding with a class's text, from the bundle
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from realtime.bundle import Bundle
from realtime.errors import BundleError
from realtime.fields import REMEDY, short
from realtime.pipeline import ScoresWindows
from realtime.schema import Scores, Window

KINDS = ("softmax", "logit", "margin", "energy", "odds", "prototype")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Windows whose measure of this kind is below the level are "nothing"."""

    kind: str  # one of KINDS
    level: float


def measure(
    kind: str, logits: np.ndarray, embedding: np.ndarray, nothing: int, prototypes: np.ndarray | None = None
) -> np.ndarray:
    """How much windows look like a known action: (N,) float64 from logits (N, K) and embeddings (N, D).

    nothing: its column. prototypes (K', D) at unit length, needed for "prototype". The logits are the model's own, at
    temperature 1, so that a level means the same whatever temperature is fitted. Raises ValueError for an unknown kind.
    """
    values = np.asarray(logits, np.float64)
    actions = np.delete(values, nothing, axis=1)
    if kind == "softmax":
        top = values.max(axis=1, keepdims=True)
        return np.exp(actions.max(axis=1) - top[:, 0]) / np.exp(values - top).sum(axis=1)
    if kind == "logit":
        return actions.max(axis=1)
    if kind == "margin":
        best = actions.argmax(axis=1)
        others = values.copy()
        others[np.arange(len(values)), best + (best >= nothing)] = -np.inf
        return actions.max(axis=1) - others.max(axis=1)
    if kind in ("energy", "odds"):
        top = actions.max(axis=1)
        energy = top + np.log(np.exp(actions - top[:, None]).sum(axis=1))
        return energy - values[:, nothing] if kind == "odds" else energy
    if kind == "prototype" and prototypes is not None:
        return np.asarray((np.asarray(embedding, np.float64) @ prototypes.T).max(axis=1))
    raise ValueError(f"a measure is one of {', '.join(KINDS)} (prototype with prototypes), got {kind!r}")


def prototypes_of(bundle: Bundle) -> np.ndarray:
    """The texts (K - 1, D) of a bundle's actions at unit length, "nothing" left out.

    Raises BundleError where the bundle has none, or not one for each action.
    """
    where = f"bundle {bundle.path}"
    name = bundle.text.get("file") if bundle.text is not None else None
    if not isinstance(name, str):
        raise BundleError(
            f"{where}: it has no class texts to measure windows against; fit the thresholds with --reject energy"
        )
    try:
        with np.load(io.BytesIO(bundle.read(name)), allow_pickle=False) as arrays:
            text, classes = np.asarray(arrays["text"], np.float64), [str(one) for one in arrays["classes"]]
        rows = text[[classes.index(action.id) for action in bundle.actions]]
    except (ValueError, KeyError, IndexError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{where}: {name} cannot be read ({short(str(error))}); {REMEDY}") from error
    length = np.linalg.norm(rows, axis=1, keepdims=True) if rows.ndim == 2 else np.zeros(1)
    if not (np.isfinite(rows).all() and (length > 0).all()):
        raise BundleError(f"{where}: {name} has no unit text for each action; {REMEDY}")
    return np.asarray(rows / length)


class Rejecting:
    """An engine whose windows of unknown actions count as "nothing"; a stage between the engine and the decoder."""

    def __init__(self, engine: ScoresWindows, bundle: Bundle, rule: Rejection) -> None:
        """Raises BundleError where the rule needs class texts and the bundle has none."""
        self._engine, self._rule = engine, rule
        self._nothing = bundle.classes.index(bundle.nothing)
        self._prototypes = prototypes_of(bundle) if rule.kind == "prototype" else None

    def score(self, windows: Sequence[Window]) -> list[Scores]:
        """As the engine's; what is rejected has all its probability on "nothing". Its logits stay as they were."""
        return rejected(self._engine.score(windows), self._rule, self._nothing, self._prototypes)


def rejected(scores: list[Scores], rule: Rejection, nothing: int, prototypes: np.ndarray | None = None) -> list[Scores]:
    """The scores, those below the rule's level with all their probability on "nothing"."""
    if not scores:
        return scores
    logits = np.stack([one.logits for one in scores])
    embedding = np.stack([np.zeros(0) if one.embedding is None else one.embedding for one in scores])
    unknown = measure(rule.kind, logits, embedding, nothing, prototypes) < rule.level
    if not unknown.any():
        return scores
    none = np.zeros(logits.shape[1], np.float32)
    none[nothing] = 1.0
    return [replace(one, probabilities=none) if far else one for one, far in zip(scores, unknown, strict=True)]
