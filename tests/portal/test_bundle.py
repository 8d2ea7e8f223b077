import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "portal-web"


def sources():
    found = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json"]
    found += [path.relative_to(SOURCES).as_posix() for path in (SOURCES / "src").rglob("*") if path.is_file()]
    return sorted(found)


@pytest.mark.skipif(not SOURCES.is_dir(), reason="the page's sources are not installed")
def test_the_page_that_is_shipped_was_built_from_these_sources():
    digest = hashlib.sha256()
    for name in sources():
        digest.update(f"{name}\n".encode())
        digest.update((SOURCES / name).read_text(encoding="utf-8").replace("\r\n", "\n").encode())
    shipped = (ROOT / "nenya" / "portal" / "page" / "sources.sha256").read_text(encoding="utf-8").strip()
    assert shipped == digest.hexdigest(), "the page is stale: cd portal-web && npm ci && npm run build"


def test_the_page_asks_nothing_of_other_machines():
    page = ROOT / "nenya" / "portal" / "page"
    text = "".join((page / name).read_text(encoding="utf-8") for name in ("index.html", "app.js", "app.css"))
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)  # licences name their source
    for sign in ("https://", "http://", "@import", "url(//"):
        at = text.find(sign)
        assert at < 0, text[max(0, at - 60) : at + 60]
