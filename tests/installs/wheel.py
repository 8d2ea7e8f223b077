"""Build wheel and sdist, and install the wheel in empty environments, with and without extras: `make wheel-test`.

    python -m tests.installs.wheel [PYTHON]

PYTHON makes the environments; by default the one that runs this. Versions are those of constraints.txt.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: A run that takes seconds, from a folder that is not the repository.
TRY = """
import h5py, json, numpy as np, pathlib, sys
import nenya
from nenya.train import main
assert pathlib.Path(nenya.__file__).is_relative_to(sys.prefix), nenya.__file__
assert (pathlib.Path(nenya.__file__).parent / "py.typed").is_file()
with h5py.File("cutouts.h5", "w") as f:
    for key in ("train", "valid"):
        f[key] = np.random.default_rng(0).normal(290, 1, (16, 16, 16)).astype("float32")
options = {
    "images_file": "cutouts.h5", "ssl_model": "resnet18", "image_size": 8, "epochs": 1, "batch_size_train": 8,
    "on_collapse": "warn", "tensorboard": len(sys.argv) > 1,
}
pathlib.Path("opts.json").write_text(json.dumps(options))
main("opts.json")
if len(sys.argv) > 1:
    import hdf5plugin
"""


def build(folder: Path) -> tuple[Path, Path]:
    """Build both from a copy of what git tracks, and check what is inside; (wheel, sdist)."""
    names = [name for name in _git("ls-files", "--cached", "--others", "--exclude-standard") if (ROOT / name).is_file()]
    for name in names:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "source" / name)
    _call(sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "source")
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    missing = sorted(set(names) - packed)
    assert not missing, f"the sdist lacks {missing}"
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    missing = sorted({name for name in names if name.startswith("nenya/")} - packed)
    assert not missing, f"the wheel lacks {missing}"
    strangers = sorted(name for name in packed if not name.startswith(("nenya/", "nenya-")))
    assert not strangers, f"the wheel also has {strangers}"
    return wheel, sdist


def install(wheel: Path, python: str, extra: str, folder: Path) -> None:
    """Install in an empty environment, train for a moment, ask the command for its version."""
    _call(python, "-m", "venv", folder)
    own = folder / "bin" / "python"
    target = f"nenya[{extra}] @ {wheel.as_uri()}" if extra else wheel
    _call(own, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", target)
    _call(own, "-m", "pip", "check")
    _call(own, "-c", TRY, *([extra] if extra else []), cwd=folder)
    _call(folder / "bin" / "nenya", "--version", cwd=folder)
    packages = json.loads(
        subprocess.check_output([own, "-m", "pip", "list", "--format", "json"], env=_environment(), text=True)
    )
    versions = {package["name"].lower(): package["version"] for package in packages}
    print(f"installed and trained: {wheel.name}[{extra}], {python}, torch {versions['torch']}", flush=True)


def main(python: str = sys.executable) -> None:
    """Do all of it in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="nenya-wheel-") as name:
        folder = Path(name)
        wheel, _ = build(folder)
        for extra in ("", "all"):
            install(wheel, python, extra, folder / (extra or "plain"))
            shutil.rmtree(folder / (extra or "plain"))


def _git(*arguments: str) -> list[str]:
    return subprocess.check_output(["git", *arguments], cwd=ROOT, text=True).splitlines()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _call(*arguments: str | Path, cwd: Path = ROOT) -> None:
    subprocess.run(list(map(str, arguments)), cwd=cwd, env=_environment(), check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
