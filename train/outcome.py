"""What a finished run leaves beside its weights: result.json, scores.npz and figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from train import checkpoint
from train.batches import LiveBatches, PreparedBatches
from train.device import hardware
from train.evaluate import clip_report, score_clips
from train.figures import draw_figures
from train.runs import Scores, save_scores
from train.scoring import accuracy, confusion, mean_class_accuracy
from train.trainer import Trainer

MODES = {"logits": "skeleton", "text_logits": "text", "fused_logits": "fused"}  # inference modes M0, M1, M2


def scored(labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """Clips, accuracy and mean accuracy of the classes."""
    table = confusion(labels, logits.argmax(axis=1), logits.shape[1])
    return {"clips": len(labels), "accuracy": accuracy(table), "mean_class_accuracy": mean_class_accuracy(table)}


def held_out(trainer: Trainer) -> dict[str, float]:
    """Accuracy on the held-out clips of each pooled set, or on the validation or test clips of a prepared one.

    The test clips of a prepared set are looked at only where `--best-on test` asks for it.
    """
    batches, config = trainer.batches, trainer.config
    if isinstance(batches, PreparedBatches):
        which = "test" if config.best_on == "test" else "validation"
        numbers = getattr(batches, which)
        if not len(numbers) or config.best_on == "none":
            return {}
        return {f"accuracy/{which}": scored(batches.labels[numbers], trainer.answers(numbers)["logits"])["accuracy"]}
    return _held_out_live(trainer, batches)


def _held_out_live(trainer: Trainer, batches: LiveBatches) -> dict[str, float]:
    network = trainer.recogniser

    def logits(skeleton: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(skeleton).to(trainer.device))[0].float().cpu().numpy()

    row = {}
    for source in batches.held:
        found = score_clips(logits, source.items, batches.classes, batches.streams, batches.frames, batches.config.fps)
        report = clip_report(source.name, found, batches.classes)
        if report["clips"]:
            row[f"accuracy/{source.name}"] = report["accuracy"]
    return row


def finish(trainer: Trainer, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Tests the last weights (and says how the best ones did), writes result.json, scores.npz and the figures."""
    config, batches = trainer.config, trainer.batches
    paces = [row["clips_per_s"] for row in rows]
    result: dict[str, Any] = {
        "method": config.method, "backbone": config.backbone,
        "encoder": trainer.model["encoder"], "data": batches.data,
        "protocol": "published" if isinstance(batches, PreparedBatches) else "live", "split": batches.split,
        "stream": "+".join(batches.streams), "seed": config.seed, "epochs": config.epochs, "label": config.label,
        "init": None if config.init is None else str(config.init),
        "parameters": sum(p.numel() for p in trainer.recogniser.parameters()),
        "clips_per_s": float(np.median(paces)) if paces else None, "hardware": hardware(trainer.device),
    }  # fmt: skip
    if isinstance(batches, PreparedBatches):
        found, labels = trainer.answers(batches.test), batches.labels[batches.test]
        result["test"] = scored(labels, found["logits"])
        result["modes"] = {mode: scored(labels, found[key])["accuracy"] for key, mode in MODES.items() if key in found}
        text = trainer.class_text()
        classes = np.array(batches.classes)
        names = batches.names[batches.test].astype(str)
        scores = Scores(
            found["logits"], labels, names, classes, found["feature"], None if text is None else text.numpy()
        )
        save_scores(config.out / "scores.npz", scores)
        draw_figures(config.out)
    else:
        result["held_out"] = held_out(trainer)
    best = config.out / "best.json"
    if best.exists():
        result["best"] = checkpoint.read_json(best)
    checkpoint.write_json(config.out / "result.json", result)
    return result
