"""Settings of the site: `make docs`. Nothing is fetched while it is built, and nothing when it is read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nenya  # noqa: E402

project = "Nenya"
author = "The Nenya developers"
copyright = "2026, the Nenya developers"
version = release = nenya.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["figures"]
highlight_language = "bash"  # blocks that name no language are commands
default_role = "literal"  # `name` in docstrings, as in the pages
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"nenya\..*"),  # types of arguments that are no part of the promised face
    (r"py:.*", r"(torch|numpy|npt|np|h5py|os|nn|collections|contextlib|concurrent|pathlib)\..*"),
    (r"py:.*", r"(Tensor|Path|Optimizer|SGD|Any|Executor|Rows|Callable|optional|nn|Metric|ndarray|float32|int64)"),
]

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block", "colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "pydata_sphinx_theme"
html_title = "Nenya"
html_static_path = ["static"]
html_css_files = ["nenya.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {page: [] for page in ("index", "start", "how", "api")}  # they have no pages below them
html_theme_options = {
    "logo": {"text": "Nenya"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "navigation_with_keys": False,
    "back_to_top_button": True,
}

#: Pages of the site that are files of the repository elsewhere, by the name that they have in the site.
ELSEWHERE = {
    "benchmarks": "benchmarks/README.md",
    "results": "benchmarks/RESULTS.md",
    "learned": "benchmarks/LEARNING.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
}
#: Files that pages link to and that are no pages.
FILES = ("benchmarks/conventional.py", "examples/slurm.sh", "examples/kubernetes.yaml", "LICENSE")


def _read_elsewhere(app: Sphinx, name: str, source: list[str]) -> None:
    """Put the file of the repository in the place of the stub, and let links within the repository lead to pages."""
    text = source[0]
    if name in ELSEWHERE:
        file = ROOT / ELSEWHERE[name]
        app.env.note_dependency(str(file))
        text = file.read_text()
    folder = (ROOT / ELSEWHERE.get(name, "docs/x")).parent
    pages = {file: f"{page}.md" for page, file in ELSEWHERE.items()}
    pages |= {f"docs/{path.name}": path.name for path in (ROOT / "docs").glob("*.md")}
    for target in pages | dict.fromkeys(FILES):
        there = os.path.relpath(ROOT / target, folder)
        here = pages.get(target) or f"../{target}"
        for end in (")", "#"):
            text = text.replace(f"]({there}{end}", f"]({here}{end}")
    source[0] = text


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _read_elsewhere)
