"""From two granules to what a network learned of them: the figures and the picture of docs/cutouts.md.

    python examples/two_scenes.py GRANULES --out two_scenes

GRANULES is a folder with scenes of Sentinel-3 SLSTR (slstr_*.nc). What is done is what the page shows. The figures are
printed, and written to two_scenes/figures.json with machine and versions; two_scenes/sst.png is the picture.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

from nenya.granules import Settings, make_cutouts
from nenya.machine.device import choose_precision
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
    }


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("granules", type=Path, help="folder of the scenes")
    parser.add_argument("--out", type=Path, default=Path("two_scenes"), help="where everything goes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures(given.granules, given.out, given.seed), indent=2)
    (given.out / "figures.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
