"""The running average, against sums by hand."""

import pytest

from nenya.training.meters import AverageMeter


def test_the_average_is_weighted_by_the_counts():
    meter = AverageMeter()
    assert (meter.val, meter.avg, meter.sum, meter.count) == (0.0, 0.0, 0.0, 0)
    meter.update(2.0, 3)
    assert (meter.val, meter.avg, meter.sum, meter.count) == (2.0, 2.0, 6.0, 3)
    meter.update(5.0)
    assert (meter.val, meter.avg, meter.sum, meter.count) == (5.0, 11 / 4, 11.0, 4)
    meter.update(-1.0, 4)
    assert (meter.val, meter.avg, meter.sum, meter.count) == (-1.0, 7 / 8, 7.0, 8)


def test_a_value_that_stands_for_no_sample_changes_no_average():
    meter = AverageMeter()
    meter.update(7.0, 0)
    assert (meter.val, meter.avg) == (7.0, 0.0)
    meter.update(2.0, 2)
    meter.update(7.0, 0)
    assert meter.avg == pytest.approx(2.0, abs=0)


def test_reset_forgets():
    meter = AverageMeter()
    meter.update(2.0, 3)
    meter.reset()
    assert (meter.val, meter.avg, meter.sum, meter.count) == (0.0, 0.0, 0.0, 0)
