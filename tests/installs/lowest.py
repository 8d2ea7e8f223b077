"""Print the lowest versions that pyproject.toml allows, a line each, as pip reads them: `make lowest`.

    python -m tests.installs.lowest [NAME=VERSION ...]

A NAME=VERSION replaces a lowest version, e.g. torch=2.13.0 to leave that one large download out.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
#: What the tests need; linters and the docs do not run with the lowest versions.
EXTRAS = ("tensorboard", "codecs")
TOOLS = ("pytest", "hypothesis", "scipy", "scikit-image", "pyyaml")


def lowest(replaced: dict[str, str] | None = None) -> dict[str, str]:
    """The lowest version of each requirement of the package, of its extras and of its tests, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    tools = [line for line in optional["dev"] if Requirement(line).name in TOOLS]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in optional[extra]), *tools]
    versions = {}
    for requirement in map(Requirement, lines):
        (bound,) = (bound.version for bound in requirement.specifier if bound.operator == ">=")
        versions[requirement.name] = bound
    return versions | (replaced or {})


if __name__ == "__main__":
    for name, version in lowest(dict(argument.split("=", 1) for argument in sys.argv[1:])).items():
        print(f"{name}=={version}")
