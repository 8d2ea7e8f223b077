"""What an installation is told: versions, extras, licence and citation agree, and nothing is pinned but in one file."""

import re
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import nenya
from tests.installs.lowest import lowest


@pytest.fixture
def root(request):
    return request.config.rootpath


@pytest.fixture
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture
def pinned(root):
    lines = (root / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture
def citation(root):
    return yaml.safe_load((root / "CITATION.cff").read_text())


def requirements(project):
    optional = project["optional-dependencies"]
    return [Requirement(line) for lines in (project["dependencies"], *optional.values()) for line in lines]


def test_every_requirement_is_a_range_and_its_pin_is_within_it(project, pinned):
    for requirement in requirements(project):
        if requirement.name == "nenya":
            continue
        operators = {bound.operator for bound in requirement.specifier}
        assert operators <= {">=", "<"}, f"{requirement}: exact versions belong in constraints.txt"
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), str(requirement)


def test_all_holds_every_extra_of_users(project):
    optional = project["optional-dependencies"]
    (everything,) = map(Requirement, optional["all"])
    assert (everything.name, everything.extras) == ("nenya", set(optional) - {"all", "docs", "dev", "mutants"})
    (mine,) = (r for r in map(Requirement, optional["dev"]) if r.name == "nenya")
    assert mine.extras == {"all", "docs"}


def test_the_lowest_versions_are_the_lower_bounds(project):
    versions = lowest({"torch": "2.13.0"})
    assert versions["torch"] == "2.13.0"
    bounds = {r.name: r.specifier for r in requirements(project)}
    for name, version in (versions | lowest()).items():
        assert f">={version}" in str(bounds[name])
    assert {Requirement(line).name for line in project["dependencies"]} <= set(versions)


def test_classifiers_name_pythons_that_may_be_used_this_one_among_them(project):
    prefix = "Programming Language :: Python :: "
    names = [line.removeprefix(prefix) for line in project["classifiers"] if line.startswith(prefix + "3.")]
    assert all(SpecifierSet(project["requires-python"]).contains(name) for name in names)
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in names


def test_citation_version_and_licence_are_the_packages(project, citation):
    assert citation["version"] == project["version"] == nenya.__version__
    assert citation["license"] == project["license"] == "BSD-3-Clause"
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]


def test_citation_names_the_papers_of_the_licence(root, citation):
    text = " ".join((root / "LICENSE").read_text().split())
    titles = [reference["title"] for reference in citation["references"]]
    assert all(title in text for title in titles)
    assert len(re.findall(r"\* \w", text)) == len(titles)
    for reference in citation["references"]:
        assert f"{reference['authors'][0]['family-names']}" in text
        assert str(reference["year"]) in text


def test_the_package_says_that_it_is_typed(root):
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "py.typed" in settings["package-data"]["nenya"]
    assert all(any((root / "nenya").glob(name)) for name in settings["package-data"]["nenya"])
