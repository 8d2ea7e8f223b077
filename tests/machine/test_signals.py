"""How Ctrl-C and what job systems send stop a run."""

import os
import signal
import threading

import pytest

from nenya.machine.signals import Interruption


def test_the_first_ctrl_c_is_a_request_and_a_second_one_later_stops_at_once(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    now = [100.0]
    monkeypatch.setattr("nenya.machine.signals.time.monotonic", lambda: now[0])

    def press_twice():
        with Interruption() as interruption:
            assert not interruption.requested
            os.kill(os.getpid(), signal.SIGINT)
            assert interruption.requested
            os.kill(os.getpid(), signal.SIGINT)  # the launcher passes on what the terminal has sent already
            now[0] += 2
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_what_job_systems_and_closing_terminals_send_is_a_request_however_often(number):
    before = signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may ignore it
    try:
        with Interruption() as interruption:
            for _ in range(3):
                os.kill(os.getpid(), number)
            assert interruption.signal is number
    finally:
        signal.signal(number, before)


def test_outside_the_main_thread_nothing_is_changed():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def run():
        with Interruption() as interruption:
            seen.append((interruption.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
