"""The bundles that a line takes: which they are, and whether each is what it is given as."""

from __future__ import annotations

from pathlib import Path

from realtime.bundle import Bundle, default_bundle, load_bundle, shipped_interactions
from realtime.errors import BundleError
from realtime.interactions import check_pair_bundle
from realtime.settings import SHIPS, RecognitionFlags
from realtime.thresholds import Thresholds, site_bundle


def load_first(folder: Path, pairs: Bundle | None = None, thresholds: Thresholds | None = None) -> Bundle:
    """A bundle of single people, to be taken beside that of pairs; BundleError where it is none, or they do not fit.

    thresholds: those of this site, which replace its own; UsageError where they are another model's.
    """
    bundle = load_bundle(folder)
    if bundle.of_pairs:
        raise BundleError(f"bundle {bundle.path} is for pairs of people: give it as --interactions")
    if pairs is not None:
        check_pair_bundle(pairs, bundle)
    return site_bundle(bundle, thresholds)


def load_bundles(chosen: RecognitionFlags, thresholds: Thresholds | None = None) -> tuple[Bundle, Bundle | None]:
    """The bundle, and that of pairs where one is named; BundleError where they do not go together.

    thresholds: of this site, for the first of them, as in `load_first`.
    """
    bundle = load_first(chosen.bundle or default_bundle(), None, thresholds)
    if chosen.interactions is None:
        return bundle, None
    ships = str(chosen.interactions) == SHIPS
    pairs = load_bundle(shipped_interactions() if ships else chosen.interactions)
    check_pair_bundle(pairs, bundle)
    return bundle, pairs
