"""What is seen of an epoch while it runs, by a clock that stands still unless it is moved."""

import io
import logging

import pytest
from rich.console import Console

import nenya.progress
from nenya.training import progress
from nenya.training.progress import EpochProgress


class Clock:
    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch):
    """Function: pretend to write to a terminal, or not; returns what is written to."""

    def pretend(is_terminal):
        out = io.StringIO()
        console = Console(file=out, force_terminal=is_terminal, width=120)
        for room in (progress, nenya.progress):
            monkeypatch.setattr(room, "console", console)
        return out

    return pretend


@pytest.fixture
def lines(caplog):
    """Function -> the lines of the log."""
    caplog.set_level(logging.INFO, logger="nenya")
    return lambda: caplog.messages


def test_without_a_terminal_a_line_comes_every_so_many_batches(clock, terminal, lines):
    out = terminal(False)
    with EpochProgress("epoch 2/4", 5, passes_left=2, print_freq=2) as watch:
        for batch in range(1, 6):
            clock.now += 1.5
            watch.advance(6, 1 / batch, 0.05)
    # 6 samples in 1.5 s; left: the rest of this pass and two more of 5 batches, 1.5 s each
    assert lines() == [
        "epoch 2/4  batch 2/5  loss 0.5000  lr 0.05  4 samples/s  0:20 left",
        "epoch 2/4  batch 4/5  loss 0.2500  lr 0.05  4 samples/s  0:16 left",
    ]
    assert out.getvalue().strip() == ""


def test_a_pass_that_goes_on_counts_from_where_it_was_and_is_as_fast_as_it_is_now(clock, terminal, lines):
    terminal(False)
    with EpochProgress("epoch 1/1", 10, done=7, print_freq=1) as watch:
        clock.now += 2
        watch.advance(8, 1.0, 0.5)
    assert lines() == ["epoch 1/1  batch 8/10  loss 1.0000  lr 0.5  4 samples/s  0:04 left"]


def test_where_nothing_is_learned_no_rate_is_shown(clock, terminal, lines):
    terminal(False)
    with EpochProgress("validation", 1, print_freq=1) as watch:
        clock.now += 1
        watch.advance(8, 1.0, None)
    assert lines() == ["validation  batch 1/1  loss 1.0000  8 samples/s  0:00 left"]


def test_on_a_terminal_there_is_a_bar_and_no_lines(clock, terminal, lines):
    out = terminal(True)
    with EpochProgress("epoch 1/1", 2, print_freq=1) as watch:
        clock.now += 1
        watch.advance(8, 1.25, 0.5)
    assert "epoch 1/1" in out.getvalue()
    assert "1/2" in out.getvalue()
    assert "loss 1.2500" in out.getvalue()
    assert lines() == []


def test_speed_and_waiting_are_measured_from_the_start_of_the_pass(clock, terminal):
    terminal(False)
    watch = EpochProgress("epoch 1/1", 2)
    clock.now += 50  # made, but not started

    def slow():
        clock.now += 1
        yield 1

    with watch:
        assert list(watch.timed(slow())) == [1]
        clock.now += 3
        watch.advance(10, 1.0, 0.1)
        assert watch.seconds == 4
        assert watch.samples_per_second == 2.5
        assert watch.waiting_share == 0.25


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (90061, "25:01:01")],
)
def test_times_left_in_words(seconds, words):
    assert nenya.progress.clock(seconds) == words
