"""docs/cutouts.md and the examples of job arrays: what is printed there is so."""

import os
import re
import subprocess

import pytest
import yaml
from typer.main import get_command

from nenya.cli import app
from nenya.data import table


@pytest.fixture
def page(request):
    return (request.config.rootpath / "docs" / "cutouts.md").read_text()


@pytest.fixture
def stub(tmp_path):
    """A `nenya` that writes down its arguments and ends with the code in a file."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nenya"
    program.write_text('#!/bin/sh\necho "$@" >> called\nexit $(cat code)\n')
    program.chmod(0o755)

    def call(command, code, **environment):
        (tmp_path / "code").write_text(str(code))
        paths = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PATH": paths} | environment, check=False)
        return done.returncode, (tmp_path / "called").read_text().splitlines()[-1]

    return call


def test_the_columns_of_the_page_are_those_of_the_table(page):
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*) \|$", page, flags=re.MULTILINE)
    assert [name for name, _, _ in rows] == list(table.COLUMNS)
    assert [meaning for _, _, meaning in rows] == [column.meaning for column in table.COLUMNS.values()]


def test_the_options_of_the_page_exist(page):
    known = {name for param in get_command(app).commands["cutouts"].params for name in param.opts}
    assert set(re.findall(r"`?(--[a-z][a-z-]*)", page)) <= known


def test_the_snippet_of_the_page_runs(page, granules, tmp_path, monkeypatch, quick_picture):
    (snippet,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "granules").symlink_to(granules)
    names = {}
    exec(snippet, names)
    assert names["summary"].cutouts == len(table.read("cutouts.parquet")["UID"])


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (3, 0), (2, 2), (1, 1)])
def test_the_job_scripts_pass_codes_on_but_for_3(request, stub, code, ends):
    examples = request.config.rootpath / "examples"
    given = ["bash", str(examples / "cutouts_slurm.sh"), "in", "c.h5", "--size", "32"]
    assert stub(given, code, SLURM_CPUS_PER_TASK="4") == (ends, "cutouts in --out c.h5 --workers 4 --resume --size 32")
    job = yaml.safe_load((examples / "cutouts_kubernetes.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    returned, called = stub([*container["command"], *container["args"]], code)
    assert returned == ends
    assert f"--shard /{job['completions']}" in called
