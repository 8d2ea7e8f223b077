"""Train on real imagery and measure what was learned: the script behind the table in benchmarks/README.md.

    python examples/real_imagery.py DATA_FOLDER --out results --seeds 0 1 2 [--only sst bt11 ...]

DATA_FOLDER holds the HDF5 files named in `EXPERIMENTS`, each with `train` and `valid` [N, C, H, W]; the labelled ones
also with `train_labels` and `valid_labels`. Every run appends a line of JSON to results/results.jsonl; runs that are
there already are not repeated. At the end the table is printed. `nenya latents` and `nenya evaluate` leave the latents
and the report of each run beside it (bt11_0.h5, bt11_0_evaluation.html).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from nenya.data.images import ImageFile
from nenya.evaluation.baselines import pixel_accuracy
from nenya.evaluation.neighbours import knn_accuracy
from nenya.latents.command import latents as write_latents
from nenya.latents.encode import encode_cutouts
from nenya.machine.device import choose_precision
from nenya.params import Params
from nenya.report.command import run as evaluate
from nenya.report.run import Settings
from nenya.train import prepare, run

COMMON: dict[str, Any] = {
    "ssl_model": "resnet18",
    "batch_size_train": 64,
    "image_size": 32,
    "random_jitter": [40, 5],
    "learning_rate": 0.05,
    "save_freq": 1000,
    "valid_freq": 4,
}
# Digits: rotating or mirroring a 6 makes a 9, so neither is a view of the same thing.
DIGITS = {"image_size": 28, "random_jitter": [22, 3], "rotate": False, "flip": False, "epochs": 2, "valid_freq": 2}
# Aerial scenes: colour tells the classes apart, and removing each channel's mean would take it away (5-NN of an
# untrained network: 0.24 demeaned, 0.41 as they are).
SCENES = {"images_file": "rsscn7_dev.h5", "epochs": 12, "demean": False}
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "sst": {"images_file": "sst_slstr_dev.h5", "epochs": 8},
    "bt11": {"images_file": "slstr_bt11_dev.h5", "epochs": 12},
    "bt11 SupCon": {"images_file": "slstr_bt11_dev.h5", "epochs": 12, "ssl_method": "SupCon"},
    "rsscn7": SCENES,
    "rsscn7 SupCon": {**SCENES, "ssl_method": "SupCon"},
    "mnist": {"images_file": "mnist.h5", **DIGITS},
    "mnist SupCon": {"images_file": "mnist.h5", "ssl_method": "SupCon", **DIGITS},
}
COLUMNS = {
    "retrieval": "view retrieval",
    "retrieval_untrained": "untrained",
    "effective_rank": "effective rank of h",
    "knn": "5-NN on h",
    "knn_evaluate": "by `nenya evaluate`",
    "knn_untrained": "untrained network",
    "knn_pixels": "raw pixels",
}


def experiment(
    name: str, seed: int, data: Path, out: Path, overrides: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Train once and measure; returns the figures. Options in `overrides` take the place of the experiment's."""
    options = COMMON | EXPERIMENTS[name] | {"data_folder": str(data), "seed": seed, "trial": f"{name}_{seed}"}
    options |= overrides
    opt = Params.from_dict(options | {"model_root": str((out / "models").absolute())})
    started = time.perf_counter()
    trained = run(opt)
    seconds = time.perf_counter() - started
    before, after = trained.curves.health[0], trained.curves.health[trained.epoch]
    row: dict[str, Any] = {
        "experiment": name,
        "seed": seed,
        "seconds": seconds,
        "precision": str(choose_precision(trained.opt.precision, trained.step.device)),
        "retrieval": after.retrieval_top1,
        "retrieval_untrained": before.retrieval_top1,
        "effective_rank": after.effective_rank,
        "health": {str(epoch): dataclasses.asdict(health) for epoch, health in trained.curves.health.items()},
    }
    row |= _neighbours(trained.model, trained.opt)
    return row | _evaluated(trained.folder, out / f"{name.replace(' ', '_')}_{seed}.h5", has_labels="knn" in row)


def _evaluated(model: Path, latents: Path, *, has_labels: bool) -> dict[str, Any]:
    """What `nenya evaluate` says of the run: the same accuracy of 5-NN, and what columns of a table are encoded."""
    report = latents.with_name(f"{latents.stem}_evaluation.html")
    write_latents(model, [], latents, space="h", dtype="float32", keys=None, views=1, resume=True, export=None)
    evaluate([latents], report, Settings(labels="labels" if has_labels else None))
    said = json.loads(report.with_suffix(".json").read_text())
    figures: dict[str, Any] = {"statements": said["statements"], "warnings": said["warnings"]}
    for score in said["train_to_valid"]:
        if score["features"] == latents.stem and score["probe"] == "5-NN":
            figures["knn_evaluate"] = score["score"]
    return figures


def _neighbours(model: Any, opt: Params) -> dict[str, float]:  # noqa: ANN401
    """5-NN accuracy on h, on h of the same network before training, and on raw pixels; empty without labels."""
    train = ImageFile(opt.images_path, "train")
    valid = ImageFile(opt.images_path, "valid")
    try:
        labels = train.labels("train_labels"), valid.labels("valid_labels")
    except ValueError:
        return {}
    figures = {"knn_pixels": pixel_accuracy(train, labels[0], valid, labels[1])}
    for name, network in (("knn", model), ("knn_untrained", prepare(opt).model)):
        features = [encode_cutouts(network, images, opt) for images in (train, valid)]
        figures[name] = knn_accuracy(features[0], labels[0], features[1], labels[1])
    return figures


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as Markdown: mean and range over seeds."""
    by_experiment: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_experiment[row["experiment"]].append(row)
    lines = [f"| data | seeds | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name in EXPERIMENTS:
        if name in by_experiment:
            members = by_experiment[name]
            seeds = " ".join(str(row["seed"]) for row in members)
            cells = [_cell([row[column] for row in members if column in row]) for column in COLUMNS]
            lines.append(f"| {name} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    digits = 1 if max(values) > 2 else 3
    text = f"{statistics.mean(values):.{digits}f}"
    return text if len(set(values)) == 1 else f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the HDF5 files")
    parser.add_argument("--out", type=Path, default=Path("results"), help="where models and results.jsonl go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    log = arguments.out / "results.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["experiment"], row["seed"]) for row in rows}
    for seed in arguments.seeds:
        for name in arguments.only:
            if (name, seed) not in done:
                rows.append(experiment(name, seed, arguments.data, arguments.out))
                with log.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")
    print(table(rows))


if __name__ == "__main__":
    main()
