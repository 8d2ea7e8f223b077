"""A misspelt option is an error of the type checker, inside the package and in a user's own script."""

import textwrap
from pathlib import Path

import pytest
from mypy import api

import nenya

ROOT = Path(nenya.__file__).parent.parent


def complaints(code, tmp_path):
    """What mypy says of a script, with the project's settings and its cache."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    out, _, _ = api.run([str(script), "--config-file", str(ROOT / "pyproject.toml")])
    return [line for line in out.splitlines() if "error:" in line]


@pytest.mark.parametrize("kind", ["nenya.params.Params", "nenya.options.Options"])
def test_mypy_knows_every_option_and_its_type(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    module, name = kind.rsplit(".", 1)
    found = complaints(
        f"""
        from {module} import {name}

        def right(opt: {name}) -> float:
            return opt.learning_rate * opt.epochs

        def misspelt(opt: {name}) -> float:
            return opt.learning_rat

        def of_another_type(opt: {name}) -> int:
            return opt.temp
        """,
        tmp_path,
    )
    assert any(f'"{name}" has no attribute "learning_rat"' in line for line in found)
    assert any('got "float", expected "int"' in line for line in found)
    lines = {int(line.split(":")[1]) for line in found}
    assert lines == {8, 11}, found  # nothing is said of what is right
