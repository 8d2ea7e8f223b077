"""From two granules to a map of patterns: the figures and pictures of docs/cutouts.md and docs/scenes.md.

    python examples/two_scenes.py GRANULES --out two_scenes

GRANULES is a folder with scenes of Sentinel-3 SLSTR (slstr_*.nc). What is done is what the pages show; it needs
nenya[granules,map]. The figures are printed, and written to two_scenes/figures.json with machine and versions.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from scipy.spatial import KDTree
from scipy.stats import spearmanr

from nenya.granules import Settings, make_cutouts
from nenya.machine.device import choose_precision
from nenya.models.checkpoints import LAST
from nenya.params import Params
from nenya.train import run

OPTIONS: dict[str, Any] = {
    "images_file": "sst.h5",
    "ssl_model": "resnet18",
    "image_size": 32,
    "random_jitter": [40, 5],
    "learning_rate": 0.05,
    "epochs": 4,
}


def figures(granules: Path, out: Path, seed: int) -> dict[str, Any]:
    """Make the cutouts, train, and return what was found."""
    made = make_cutouts(sorted(granules.glob("slstr_*.nc")), out / "sst.h5", Settings(block_degrees=2.0, valid=0.2))
    options = OPTIONS | {"data_folder": str(out), "model_root": str((out / "models").absolute()), "seed": seed}
    trained = run(Params.from_dict(options))
    before, after = trained.curves.health[0], trained.curves.health[trained.epoch]
    return {
        "cutouts": made.cutouts,
        "train": made.train,
        "valid": made.valid,
        "view retrieval": after.retrieval_top1,
        "untrained": before.retrieval_top1,
        "by chance": after.chance_top1,
        "precision": str(choose_precision(trained.opt.precision, trained.step.device)),
        "seed": seed,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "model": f"models/{trained.folder.name}/{LAST}",
    }


def atlas(out: Path, model: Path) -> dict[str, Any]:
    """Latents, evaluation, map and a static page of the portal by the commands; return what they found."""
    _nenya(out, "latents", model.absolute(), "sst.h5", "--out", "latents.h5")
    _nenya(out, "evaluate", "latents.h5", "--out", "evaluation.html")
    _nenya(out, "map", "latents.h5", "--gallery", "map.png")
    _nenya(out, "portal", ".", "--static", "atlas")
    evaluation = json.loads((out / "evaluation.json").read_text())
    about = json.loads(pyarrow.parquet.read_schema(out / "map.parquet").metadata[b"nenya"])
    return {
        "probes": {
            f"{found['target']}, {found['features']}, {found['probe']}": [
                round(found[part], 2) for part in ("score", "low", "high")
            ]
            for found in evaluation["probes"]
        },
        "trust of the map": about["classes"][0]["trust"],
        "what the map shows": shown(out / "map.parquet"),
    }


def shown(file: Path) -> dict[str, float]:
    """How far the map is one of DT, of the scenes, or of cutouts that share pixels: its neighbours, 15 a cutout."""
    columns = pyarrow.parquet.read_table(file).to_pydict()
    place = np.column_stack([columns["US0"], columns["US1"]])
    contrast, scene = np.array(columns["DT"]), np.unique(columns["filename"], return_inverse=True)[1]
    neighbours = KDTree(place).query(place, k=16)[1][:, 1:]
    rarer = scene == np.argmin(np.bincount(scene))
    corner = np.column_stack([columns["row"], columns["col"]])
    near = (np.abs(corner[neighbours] - corner[:, None]) < columns["field_size"][0]).all(axis=2)
    residual = contrast - contrast[neighbours].mean(axis=1)
    return {
        "DT from the neighbours, R2": round(float(1 - residual.var() / contrast.var()), 2),
        "rank correlation of DT and US0": round(float(spearmanr(contrast, place[:, 0]).statistic), 2),
        "share of the rarer scene": round(float(rarer.mean()), 2),
        "its share among its cutouts' neighbours": round(float(rarer[neighbours[rarer]].mean()), 2),
        "neighbours that share pixels": round(float((near & (scene[neighbours] == scene[:, None])).mean()), 3),
    }


def _nenya(folder: Path, *arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "nenya", *map(str, arguments)], check=True, cwd=folder)


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("granules", type=Path, help="folder of the scenes")
    parser.add_argument("--out", type=Path, default=Path("two_scenes"), help="where everything goes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    found = figures(given.granules, given.out, given.seed)
    found |= atlas(given.out, given.out / str(found.pop("model")))
    text = json.dumps(found, indent=2)
    (given.out / "figures.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
