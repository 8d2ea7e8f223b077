"""The index: what it finds, which latents it belongs to, and when it is refused or not enough."""

import dataclasses
import json
import os

import numpy as np
import pytest

from nenya.errors import DataError
from nenya.latents.store import Latents
from nenya.search import index as room
from nenya.search.index import Index, path_of
from nenya.search.searcher import Searcher
from nenya.search.vectors import Vectors
from tests.search.conftest import write_latents

pytest.importorskip("faiss")
N, DIMS = 3000, 32


def latents_of(seed=0):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(N, 6))
    return np.maximum(hidden @ rng.normal(size=(6, DIMS)) + 0.2 * rng.normal(size=(N, DIMS)), 0).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Latents with their index; not to be changed."""
    path = write_latents(tmp_path_factory.mktemp("index") / "latents.h5", latents_of()[:2000], latents_of()[2000:])
    Searcher(path, index=True)
    return path


@pytest.fixture
def files(made, tmp_path):
    """A copy of them."""
    for name in ("latents.h5", "latents.index"):
        (tmp_path / name).write_bytes((made.parent / name).read_bytes())
    return tmp_path / "latents.h5"


def test_it_finds_what_the_exact_search_finds(made):
    exact, fast = Searcher(made), Searcher(made, index=True)
    queries = exact.rows([f"train:{row}" for row in range(0, 2000, 10)])
    recall, same = [], []
    for one, other in zip(exact.search(queries, 10), fast.search(queries, 10), strict=True):
        shared = np.intersect1d(one.numbers, other.numbers)
        recall.append(len(shared) / 10)
        both = [dict(zip(answer.numbers.tolist(), answer.similarity, strict=True)) for answer in (one, other)]
        same.append(all(both[0][number] == both[1][number] for number in shared.tolist()))
        assert (one.exact, other.exact) == (True, False)
        assert other.query.own not in other.numbers
    assert np.mean(recall) >= 0.95
    assert all(same)


def test_it_lies_beside_and_is_made_once(made):
    before = (made.parent / "latents.index").stat()
    searcher = Searcher(made, index=True)
    after = (made.parent / "latents.index").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert sorted(path.name for path in made.parent.iterdir()) == ["latents.h5", "latents.index"]
    header = json.loads((made.parent / "latents.index").read_bytes().partition(b"\n")[0])
    assert header["digest"] == searcher.vectors.latents.digest()
    assert header["recall"] >= 0.95


def test_it_is_refused_when_the_latents_have_changed(files):
    values = latents_of()
    values[5, 0] += 1
    state = files.stat()
    write_latents(files, values[:2000], values[2000:])
    os.utime(files, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(DataError, match=r"has changed since.*Remove it"):
        Searcher(files, index=True)
    assert Searcher(files).search(Searcher(files).rows(["3"]), 3)


def test_a_change_in_place_is_seen_however_soon_it_comes(tmp_path):
    path = write_latents(tmp_path / "latents.h5", latents_of()[:400])
    Searcher(path, index=True)
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\x00\x00\x80\x3f")
    with pytest.raises(DataError, match="has changed since"):
        Searcher(path, index=True)


def test_a_copy_with_its_index_is_good(files):
    assert Searcher(files, index=True).search(Searcher(files).rows(["3"]), 3)


def test_times_tell_only_where_they_are_sure(files, monkeypatch):
    """The digest is not computed where the times show that nothing changed; it is, right after a change."""
    vectors = Vectors(Latents(files))
    header = room._Header(**json.loads(path_of(vectors).read_bytes().partition(b"\n")[0]))
    stamp = room._stamp(vectors)
    monkeypatch.setattr(Latents, "digest", lambda self: "computed")
    later = dataclasses.replace(header, stamp=[*stamp[:4], stamp[3] + 10**10])
    assert room._unchanged(later, vectors)
    soon = dataclasses.replace(header, stamp=[*stamp[:4], stamp[3] + 10**9])
    assert not room._unchanged(soon, vectors)


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_index_is_refused(files, damage):
    path = files.with_name("latents.index")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(
        {"flipped": content, "cut": content[:-100], "empty": b"", "foreign": b"PAR1" + bytes(5000)}[damage]
    )
    with pytest.raises(DataError, match="Remove it"):
        Searcher(files, index=True)


def test_of_both_spaces_each_has_its_own(tmp_path):
    path = write_latents(tmp_path / "l.h5", latents_of()[:300], space="both")
    for space in ("h", "z"):
        Searcher(path, space=space, index=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["l.h5", "l.index", "l.z.index"]


def test_where_it_finds_too_few_that_are_allowed_all_are_looked_at(files):
    """Rows that are allowed lie where the index does not look: the answer is the exact one, not a short one."""
    fast, exact = Searcher(files, index=True), Searcher(files)
    (query,) = exact.rows(["0"])
    vectors = exact.vectors
    far = exact.search([query], N - 1)[0].numbers[-40:]
    allowed = np.isin(np.arange(N), far)
    vectors.usable[~allowed & (np.arange(N) > 0)] = False
    fast.vectors.usable[:] = vectors.usable
    one, other = (searcher.search([query], 20)[0] for searcher in (exact, fast))
    np.testing.assert_array_equal(one.numbers, other.numbers)
    assert other.exact


@pytest.mark.parametrize("width", [1, 7, 30])
def test_latents_of_any_length_have_an_index(tmp_path, width):
    path = write_latents(tmp_path / "l.h5", np.random.default_rng(0).normal(size=(1200, width)))
    exact, fast = Searcher(path), Searcher(path, index=True)
    (one,), (other,) = (searcher.search(exact.rows(["5"]), 10) for searcher in (exact, fast))
    assert width == 1 or len(np.intersect1d(one.numbers, other.numbers)) >= 8
    assert len(other.numbers) == 10


@pytest.mark.parametrize("count", [2, 5, 30])
def test_few_latents_have_an_index_too(tmp_path, count):
    path = write_latents(tmp_path / "few.h5", latents_of()[:count])
    searcher = Searcher(path, index=True)
    assert len(searcher.search(searcher.rows(["0"]), count - 1)[0].rows) == count - 1


def test_latents_that_are_all_the_same_have_an_index(tmp_path):
    path = write_latents(tmp_path / "same.h5", np.ones((1500, 16)))
    searcher = Searcher(path, index=True)
    (answer,) = searcher.search(searcher.rows(["7"]), 5)
    np.testing.assert_allclose(answer.similarity, 1)
    assert 7 not in answer.numbers


def test_latents_that_are_not_finite_have_none(tmp_path):
    values = latents_of()[:300]
    values[5, 2] = np.nan
    path = write_latents(tmp_path / "few.h5", values)
    with pytest.raises(DataError, match="not finite"):
        Searcher(path, index=True)
    assert not path.with_suffix(".index").exists()


def test_rows_that_are_not_usable_are_not_in_it(tmp_path):
    values = latents_of()[:600]
    values[::3] = np.nan
    searcher = Searcher(write_latents(tmp_path / "gaps.h5", values), index=True)
    index = Index.beside(searcher.vectors)
    assert index._header.num_rows == 400
    (answer,) = searcher.search(searcher.rows(["1"]), 10)
    assert not (answer.numbers % 3 == 0).any()
