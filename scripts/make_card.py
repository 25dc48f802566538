"""Scores a bundle on held-out subjects of each set and writes its model card: python -m scripts.make_card --help"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from realtime.backends import open_engine
from realtime.bundle import Bundle, load_bundle
from realtime.command import run_command
from realtime.errors import UsageError
from realtime.features import features
from train.checkpoint import check_writable, write_json, write_text
from train.data import read
from train.data.clip import Clip, Recording
from train.data.files import text_of
from train.evaluate import clip_answer, clip_windows, evaluate, labelled_clips
from train.sources import of_subjects, parse_held_out, parse_sources
from train.statistics import discordant, mcnemar
from train.vocabulary import ACTIONS, action_of

EXAMPLES = """examples:
  python -m scripts.make_card --bundle realtime/assets/bundle --data utkinect:DIR msr_action3d:DIR \\
      --held-out utkinect:6 msr_action3d:9 --notes docs/model_notes.md --out card.md --json card.json
"""
# What the events table needs beside it to be read rightly.
REMARKS = [
    "UTKinect labels ten moments and leaves the walking, turning and reaching between them unlabelled; events there",
    "count as false. Its reader takes 60 frame numbers a second (docs/training.md says why): at the 30 that the set",
    "names, delays would double and rates halve. MSRC-12's are true idle stretches.",
]
HEADS = {  # which of a network's heads answers (export.bundle --head), in words
    "skeleton": "the classifier answers",
    "text": "the nearness of its embedding to the classes' texts answers",
    "both": "the mean of its classifier and of its embedding's nearness to the classes' texts answers",
}
Found = dict[str, dict[str, Any]]  # set -> its report


@dataclass(frozen=True)
class Config:
    """Score a bundle on the subjects kept out of its training, set by set, and write the model card."""

    bundle: Path
    """The bundle."""
    data: tuple[str, ...]
    """Data sets as NAME:PATH."""
    held_out: tuple[str, ...]
    """The subjects that its training did not see, as NAME:S1,S2."""
    notes: Path
    """Markdown to put below the figures: data and terms, what it has never seen."""
    against: Path | None = None
    """Another bundle to compare with on the same clips, such as the one before."""
    out: Path = Path("MODEL_CARD.md")
    """Where the card goes."""
    json: Path | None = None
    """Where the whole reports go."""


def reports(config: Config, bundle: Bundle, console: Console, other: Bundle | None = None) -> Found:
    """The report of each set on its held-out subjects, with the other bundle's answers where one is named.

    UsageError where a set has no subjects named, or lacks one of them.
    """
    sources = parse_sources(config.data)
    held = parse_held_out(config.held_out, [source.name for source in sources])
    for source in sources:
        if source.name not in held:
            raise UsageError(f"no held-out subjects of {source.name} are named; add --held-out {source.name}:S1,S2")
    found = {}
    for source in sources:
        items, _ = of_subjects(source.name, list(read(source.name, source.path)), held[source.name])
        report = evaluate(bundle, source.name, items)
        if other is not None:
            report["against"] = evaluate(other, source.name, items, events=False)["right"]
        if len(bundle.graphs) > 1:
            report["graphs"] = of_graphs(bundle, items)
        report["subjects"] = sorted({str(item.subject) for item in items}, key=lambda name: (len(name), name))
        report["seconds"] = sum(
            float(item.times_ns[-1] - item.times_ns[0]) * 1e-9 for item in items if isinstance(item, Recording)
        )
        found[source.name] = report
        console.print(f"{source.name}: {report['accuracy']:.1%} of {report['clips']} clips")
    return found


def of_graphs(bundle: Bundle, items: Sequence[Clip | Recording]) -> dict[str, dict[str, int]]:
    """Each graph on the same clips: how many it names rightly, and in how many of their windows it agrees with fp32."""
    clips = [clip for clip in labelled_clips(items) if action_of(clip.data, clip.label) in bundle.classes]
    windows = [clip_windows(clip, bundle.window, bundle.fps) for clip in clips]
    truth = [action_of(clip.data, clip.label) for clip in clips]
    nothing, found = bundle.classes.index(bundle.nothing), {}
    best: dict[str, list[np.ndarray]] = {}
    for precision in bundle.graphs:
        engine, right = open_engine(bundle, "ort", precision=precision), 0
        best[precision] = []
        for joints, action in zip(windows, truth, strict=True):
            logits = np.zeros((0, len(bundle.classes)), np.float32)
            if len(joints):
                logits, _ = engine.infer(features(joints, np.ones(joints.shape[:3], np.float32), bundle.streams))
            right += bundle.classes[clip_answer(logits / bundle.temperature, nothing)] == action
            best[precision].append(logits.argmax(axis=1))
        engine.close()
        pairs = zip(best[precision], best["fp32"], strict=True)
        agree = sum(int((ours == fp32).sum()) for ours, fp32 in pairs)
        found[precision] = {"clips": len(clips), "right": right, "windows": sum(map(len, windows)), "agree": agree}
    return found


def _half_width(share: float, count: int) -> float:
    """Half of the 95 % interval of a share (normal approximation), in points."""
    return 196 * float(np.sqrt(max(share * (1 - share), 0.25 / max(count, 1)) / max(count, 1)))


def _opening(bundle: Bundle) -> list[str]:
    """What the bundle is."""
    trained, texts = bundle.training, bundle.text
    how = []
    if texts:
        how = [f"Trained as {trained['method'].upper()} with texts of {texts['encoder']}; {HEADS[trained['head']]}."]
    return [
        f"# {bundle.name}",
        "",
        f'Made {bundle.created[:10]}. {len(bundle.actions)} actions and "nothing" from windows of {bundle.window} '
        f"frames at {bundle.fps:g} a second, joints {bundle.layout.name}, streams {', '.join(bundle.streams)}.",
        *how,
        "",
    ]


def _clip_table(found: Found) -> list[str]:
    """Accuracy of each set."""
    lines = [
        "## Figures on subjects that training did not see",
        "",
        "Top-1 over the classes that the vocabulary has (all of them: coverage 100 % unless said); an answer of",
        '"nothing" counts as wrong. Scored by `scripts/make_card.py`, which runs the code of `train.evaluate`.',
        "",
        "| set | held-out subjects | clips | accuracy | mean of classes | coverage |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in found.items():
        lines.append(
            f"| {name} | {', '.join(r['subjects'])} | {r['clips']} | {r['accuracy']:.1%} "
            f"± {_half_width(r['accuracy'], r['clips']):.0f} | {r['mean_class_accuracy']:.1%} | {r['coverage']:.0%} |"
        )
    return [*lines, ""]


def comparison(found: Found, other: Bundle) -> list[str]:
    """The other bundle on the same clips, set by set and pooled, with McNemar's exact test."""
    lines = [
        f"Beside {other.name} on the same clips (only one of the two right; exact two-sided McNemar test):",
        "",
        f"| set | clips | {other.name} | this one | only {other.name} right | only this one | p |",
        "|---|---|---|---|---|---|---|",
    ]
    pairs = {name: (np.array(r["right"], bool), np.array(r["against"], bool)) for name, r in found.items()}
    pairs["all together"] = (
        np.concatenate([mine for mine, _ in pairs.values()]),
        np.concatenate([theirs for _, theirs in pairs.values()]),
    )
    for name, (mine, theirs) in pairs.items():
        ours, its = discordant(mine, theirs)
        lines.append(
            f"| {name} | {len(mine)} | {theirs.mean():.1%} | {mine.mean():.1%} | {its} | {ours} "
            f"| {mcnemar(ours, its):.2f} |"
        )
    return [*lines, ""]


def _graph_table(found: Found) -> list[str]:
    """Accuracy of each graph of the bundle set by set, and how often it gives fp32's answer."""
    tables = {name: r["graphs"] for name, r in found.items() if "graphs" in r}
    if not tables:
        return []
    first = next(iter(tables))
    precisions = list(tables[first])
    others = [precision for precision in precisions if precision != "fp32"]
    sums = {
        precision: {
            key: sum(t[precision][key] for t in tables.values()) for key in ("clips", "right", "windows", "agree")
        }
        for precision in precisions
    }
    lines = [
        "Each graph of the bundle on the same clips, and in how many of their windows its best class is fp32's:",
        "",
        "| set | clips | windows |"
        + "".join(f" {p} |" for p in precisions)
        + "".join(f" {p} as fp32 |" for p in others),
        "|---" * (3 + len(precisions) + len(others)) + "|",
    ]
    for name, table in {**tables, "all together": sums}.items():
        shares = [f" {table[p]['right'] / max(table[p]['clips'], 1):.1%} |" for p in precisions]
        shares += [f" {table[p]['agree'] / max(table[p]['windows'], 1):.2%} |" for p in others]
        lines.append(f"| {name} | {table['fp32']['clips']} | {table['fp32']['windows']} |" + "".join(shares))
    return [*lines, ""]


def _event_table(found: Found) -> list[str]:
    """Events of each set that has recordings."""
    lines = [
        "Events on continuous recordings (one to one, in order; IoU 0.3, or the tag within the event):",
        "",
        "| set | minutes | truths | F1 | precision | recall | onset delay (median) | false events a minute |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, r in found.items():
        if "events" in r:
            e = r["events"]
            delay = "-" if e["onset_delay_s_median"] is None else f"{e['onset_delay_s_median']:.2f} s"
            rate = "-" if e["false_per_hour"] is None else f"{e['false_per_hour'] / 60:.2f}"
            lines.append(
                f"| {name} | {r['seconds'] / 60:.1f} | {e['truths']} | {e['f1']:.2f} | {e['precision']:.2f} | "
                f"{e['recall']:.2f} | {delay} | {rate} |"
            )
    return [*lines, "", *REMARKS, ""]


def _class_table(bundle: Bundle, found: Found) -> list[str]:
    """Each action of the vocabulary over all sets."""
    lines = ["## Vocabulary, and each class on all held-out clips together", ""]
    lines += ["| action | id | sets | clips | accuracy |", "|---|---|---|---|---|"]
    for action in bundle.actions:
        rows = {name: r["per_class"][action.id] for name, r in found.items() if action.id in r["per_class"]}
        clips = sum(row["clips"] for row in rows.values())
        right = sum(row["clips"] * row["accuracy"] for row in rows.values())
        figure = f"{right / clips:.0%}" if clips else "not scored"
        title = ACTIONS.get(action.id, action.name)
        lines.append(f"| {title} | {action.id} | {', '.join(rows)} | {clips} | {figure} |")
    return [*lines, ""]


def _confusions(found: Found) -> list[str]:
    """The commonest wrong answers of each set."""
    lines = ["## What it confuses most", "", "| set | true | answered | clips |", "|---|---|---|---|"]
    for name, r in found.items():
        lines += [f"| {name} | {c['true']} | {c['answer']} | {c['clips']} |" for c in r["confused"][:5]]
    return [*lines, ""]


def card(bundle: Bundle, found: Found, notes: str, other: Bundle | None = None) -> str:
    """The card's Markdown; with a comparison where the reports hold another bundle's answers."""
    lines = _opening(bundle) + _clip_table(found) + _graph_table(found) + (comparison(found, other) if other else [])
    lines += _event_table(found) + _class_table(bundle, found)
    return "\n".join(lines + _confusions(found)) + "\n" + notes


def run(config: Config, console: Console) -> int:
    """Scores, then writes both files."""
    bundle, notes = load_bundle(config.bundle), text_of(config.notes)
    check_writable(config.out)
    check_writable(config.json)
    other = load_bundle(config.against) if config.against else None
    found = reports(config, bundle, console, other)
    write_text(config.out, card(bundle, found, notes, other))
    if config.json:
        write_json(config.json, found)
    console.print(f"wrote {config.out}")
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(Config, "scripts.make_card", EXAMPLES, run)


if __name__ == "__main__":
    sys.exit(main())
