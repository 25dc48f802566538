"""Small run folders with known answers, for the tests of what reads runs."""

import json

import numpy as np

from train.runs import Scores, save_scores
from train.scoring import accuracy, mean_class_accuracy

CLASSES = ("sit down", "stand up", "throw")


def logits_of(answers, classes):
    """Logits (N, K) whose highest is each clip's answer."""
    return np.eye(classes, dtype=np.float32)[np.asarray(answers)]


def write_run(folder, answers, labels, names=None, classes=CLASSES, feature=None, text=None, config=None, **result):
    """A finished run: `answers` are class numbers (N,) or logits (N, K); `result` goes over result.json's entries."""
    folder.mkdir(parents=True)
    logits = np.asarray(answers, np.float32) if np.ndim(answers) == 2 else logits_of(answers, len(classes))
    names = [f"clip {number}" for number in range(len(labels))] if names is None else names
    scores = Scores(logits, np.asarray(labels, np.int64), np.array(names), np.array(classes), feature, text)
    save_scores(folder / "scores.npz", scores)
    content = {
        "method": "ce", "backbone": "ctrgcn", "encoder": "all-MiniLM-L6-v2", "data": "nw_ucla", "protocol": "published",
        "split": "xview", "stream": "joint", "seed": 0, "epochs": 2, "label": "", "clips_per_s": 100.0,
        "hardware": "a CPU",
        "test": {"clips": len(labels), "accuracy": accuracy(scores.confusion),
                 "mean_class_accuracy": mean_class_accuracy(scores.confusion)},
    } | result  # fmt: skip
    (folder / "result.json").write_text(json.dumps(content))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder
