"""A few of the damages, as `make soak` tries them by the hundred."""

import pytest

from tests.faults import damage


@pytest.mark.parametrize(
    ("scenario", "count"),
    [
        (damage.damaged_checkpoints, 3),
        (damage.all_checkpoints_damaged, 2),
        (damage.bits_flipped, 40),
        (damage.curves_damaged, 120),
        (damage.old_curves_damaged, 60),
        (damage.resumed_with_damaged_curves, 1),
        (damage.imagery_changes_under_the_run, 3),
        (damage.imagery_replaced_between_runs, 2),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_damage_is_said_or_passed_over_and_never_trained_on(shop, scenario, count):
    record = scenario(shop, count, seed=1)
    assert record.held, "\n".join(record.failures)


@pytest.mark.parametrize("change", ["truncated", "emptied", "NaN written into it"])
def test_a_mapped_file_that_shrinks_or_loses_pixels_is_an_error_and_not_the_end_of_the_process(
    shop, change, monkeypatch
):
    befall, _, _ = damage.CHANGES[change]
    monkeypatch.setattr(damage, "CHANGES", {change: (befall, ("mapped",), (damage.REFUSED,))})
    record = damage.imagery_changes_under_the_run(shop, 1, seed=2)
    assert record.held, "\n".join(record.failures)
