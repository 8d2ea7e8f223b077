"""What is refused: one message, exit code 2, nothing written."""

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from nenya.cli import main
from nenya.data.images import ImageFile
from nenya.latents.origin import cutouts_digest
from nenya.report.run import Settings, evaluate


@pytest.fixture
def refused(capsys, tmp_path):
    """Run `nenya evaluate`; the one message that it gives. Nothing new lies in the folder afterwards."""

    def call(*arguments):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(SystemExit) as caught:
            main(["evaluate", *map(str, arguments), "--no-encode"])
        err = capsys.readouterr().err
        assert caught.value.code == 2, err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        messages = [line for line in err.splitlines() if line.startswith("nenya: ")]
        assert len(messages) == 1
        assert "Traceback" not in err
        return messages[0]

    return call


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


@pytest.fixture
def latents(write_latents, tmp_path, rows):
    return write_latents(tmp_path / "l.h5", rows[:30], rows[30:])


def write_table(path, count_train=30, count_valid=10, **more):
    columns = {
        "pp_type": np.repeat([1, 0], [count_train, count_valid]),
        "pp_idx": np.concatenate((np.arange(count_train), np.arange(count_valid))),
        "lat": np.linspace(-30, 30, count_train + count_valid),
        "lon": np.zeros(count_train + count_valid),
        "DT": np.random.default_rng(0).normal(size=count_train + count_valid),
    } | more
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_files_that_are_no_latents(refused, latents, tmp_path):
    (tmp_path / "text.h5").write_text("no")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["train"] = np.zeros((3, 2))
    for wrong, words in (("none.h5", "none.h5"), ("text.h5", "text.h5"), ("other.h5", "no file of latents")):
        assert words in refused(tmp_path / wrong)
    cut = tmp_path / "cut.h5"
    cut.write_bytes(latents.read_bytes()[:-500])
    assert "cut.h5" in refused(cut)


def test_latents_that_are_not_finite(refused, latents):
    with h5py.File(latents, "r+") as file:
        file["valid"][3, 2] = np.nan
    message = refused(latents)
    assert "row 3 of valid" in message
    assert "valid_usable" in message


def test_too_few_usable_rows(refused, write_latents, tmp_path, rows):
    rows[1:] = np.nan
    assert "1 usable rows" in refused(write_latents(tmp_path / "l.h5", rows[:30], rows[30:]))


def test_more_neighbours_than_rows(refused, latents, tmp_path):
    assert "at most 39" in refused(latents, "-k", 40)
    write_table(tmp_path / "t.parquet")
    assert "cutouts to find them among" in refused(latents, "-k", 36, "--table", tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-k", 0), "--neighbours is 0"),
        (("--sample", 1), "--sample is 1"),
        (("--views", 1), "--views is 1"),
        (("--space", "y"), "expected h or z"),
        (("--space", "z"), "latents h, not z"),
        (("--out", "l.h5"), "ending in .html"),
        (("--labels", "labels"), "no table was given, and the cutout file is not at hand"),
        (("--cutouts", "none.h5"), "none.h5"),
        (("--table", "none.parquet"), "none.parquet"),
    ],
)
def test_options_that_cannot_be_used(refused, latents, arguments, words):
    assert words in refused(latents, *arguments)


def test_latents_of_other_cutouts_are_not_compared(refused, latents, write_latents, tmp_path, rows):
    fewer = write_latents(tmp_path / "fewer.h5", rows[:29], rows[30:])
    assert "different cutouts" in refused(latents, fewer)
    other = write_latents(tmp_path / "other.h5", rows[:30], rows[30:], about={"cutouts_digest": {"train": "1"}})
    assert "different cutouts" in refused(latents, other)
    assert "given twice" in refused(latents, latents)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"count_train": 31}, "train has 30 rows, and the table 31"),
        ({"count_valid": 9}, "valid has 10 rows, and the table 9"),
        ({"pp_idx": np.zeros(40, int)}, "not the numbers 0 to N - 1"),
        ({"pp_idx": np.array(["x"] * 40)}, "not the numbers 0 to N - 1"),
        ({"pp_type": np.full(40, -1)}, "and the table 0 of that side"),
        ({"pp_type": [[1]] * 40}, "expected numbers or texts"),
    ],
)
def test_a_table_of_other_cutouts(refused, latents, tmp_path, columns, words):
    assert words in refused(latents, "--table", write_table(tmp_path / "t.parquet", **columns))


def test_files_that_are_no_table(refused, latents, tmp_path):
    (tmp_path / "t.parquet").write_text("no")
    assert "t.parquet cannot be read" in refused(latents, "--table", tmp_path / "t.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"lat": np.zeros(40)}), tmp_path / "u.parquet")
    assert "no column pp_type and pp_idx" in refused(latents, "--table", tmp_path / "u.parquet")


def test_cutouts_that_are_others(refused, latents, tmp_path):
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["train"], file["valid"] = (
            np.random.default_rng(0).random((31, 4, 4)),
            np.random.default_rng(0).random((10, 4, 4)),
        )
    assert "31 cutouts of 'train'" in refused(latents, "--cutouts", tmp_path / "c.h5")


def test_cutouts_of_the_same_number_that_are_others(refused, write_latents, tmp_path, rows):
    for name, seed in (("own", 0), ("other", 1)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["train"], file["valid"] = np.random.default_rng(seed).random((30, 4, 4)), np.ones((10, 4, 4))
    digests = {key: cutouts_digest(ImageFile(tmp_path / "own.h5", key)) for key in ("train", "valid")}
    about = {"cutouts_digest": digests, "cutouts": str(tmp_path / "own.h5")}
    latents = write_latents(tmp_path / "l.h5", rows[:30], rows[30:], about=about)
    message = refused(latents, "--cutouts", tmp_path / "other.h5")
    assert "other.h5 has as many cutouts of 'train'" in message
    assert "not those that the latents are of" in message
    found = evaluate([latents], Settings(cutouts=tmp_path / "own.h5", encode=False))
    assert found.imagery is not None


def test_labels_that_are_missing(refused, latents, tmp_path):
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["train"], file["valid"] = (
            np.random.default_rng(0).random((30, 4, 4)),
            np.random.default_rng(0).random((10, 4, 4)),
        )
        file["train_labels"] = np.zeros(30, int)
    message = refused(latents, "--cutouts", tmp_path / "c.h5", "--labels", "labels")
    assert "train_labels and valid_labels" in message
    table = write_table(tmp_path / "t.parquet", kind=np.linspace(0, 1, 40))
    assert "expected whole numbers or texts" in refused(latents, "--table", table, "--labels", "kind")


def test_a_page_that_cannot_be_written_leaves_no_other_file(refused, latents, tmp_path, monkeypatch):
    (tmp_path / "there").write_text("a file")
    assert "cannot write" in refused(latents, "--out", tmp_path / "there" / "r.html")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nenya.report.command.draw_overview", fail)
    assert "No space left" in refused(latents, "--out", tmp_path / "r.html")


def test_a_table_of_other_granules_is_refused_though_its_rows_fit(refused, latents, tmp_path):
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["train"], file["valid"] = np.random.default_rng(0).random((30, 4, 4)), np.zeros((10, 4, 4))
        file.attrs["inputs_digest"] = "of these"
    table = pyarrow.parquet.read_table(write_table(tmp_path / "t.parquet"))
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({"nenya_inputs_digest": "of others"}), tmp_path / "t.parquet"
    )
    given = ("--cutouts", tmp_path / "c.h5", "--table", tmp_path / "t.parquet")
    assert "do not belong together" in refused(latents, *given)
