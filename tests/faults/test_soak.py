"""The soak's own bookkeeping: a failure is an exit code of 1 and a row that says so, and only the table changes."""

import pytest

from nenya.errors import NenyaError
from tests.faults import soak
from tests.faults.harness import Ended, Record


def fake(*results):
    def scenario(shop, count, seed):
        record = Record("a fault", asked=2)
        for result in results:
            record.note(*result)
        return record

    return scenario


@pytest.mark.parametrize(
    ("results", "code"),
    [([("fine",), ("fine", "")], 0), ([("fine",), ("fine", "but for this")], 1), ([("fine",)], 1)],
    ids=["as promised", "one not", "too few"],
)
def test_anything_not_as_promised_is_an_exit_code_of_1(monkeypatch, capsys, results, code):
    monkeypatch.setattr(soak, "PLAN", [soak.Trial(fake(*results), 2, 2)])
    assert soak.main(["--quick"]) == code
    assert ("not as promised" in capsys.readouterr().out) is bool(code)


def test_the_table_goes_between_the_markers_and_nothing_else_changes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{soak.BEGIN}\nold\n{soak.END}\nafter\n")
    soak.write(page, "| new |")
    soak.write(page, "| newer |")
    assert page.read_text() == f"before\n{soak.BEGIN}\n\n| newer |\n\n{soak.END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(NenyaError, match="no markers"):
        soak.write(page, "| new |")


def test_the_page_has_the_markers():
    text = soak.PAGE.read_text()
    assert text.count(soak.BEGIN) == text.count(soak.END) == 1


@pytest.mark.parametrize(
    ("ended", "complaint"),
    [
        (Ended(0, "fine", 1.0), ""),
        (Ended(2, "nenya: one message", 1.0), ""),
        (Ended(2, "nenya: one\nnenya: two", 1.0), "2 messages"),
        (Ended(2, "", 1.0), "0 messages"),
        (Ended(2, "Traceback (most recent call last)\nnenya: one", 1.0), "a traceback"),
        (Ended(1, "nenya: one", 1.0), "ended with 1 instead of 0 or 2"),
        (Ended(-11, "", 1.0), "ended with -11"),
        (Ended(-9, "", 1.0, hung=True), "did not end"),
    ],
)
def test_an_end_that_is_not_as_promised_is_noticed(ended, complaint):
    assert (complaint in ended.complaint(0, 2)) if complaint else not ended.complaint(0, 2)
