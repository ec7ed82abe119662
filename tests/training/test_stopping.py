"""Signals: noted where work must not be torn, raised everywhere else, and given back afterwards."""

import signal
import threading

import pytest

from fewshotseg.training.stopping import Stopped, StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_raised_at_once_or_noted(number):
    before = signal.getsignal(number)
    with StopSignals() as stop:
        with pytest.raises(Stopped, match=f"stopped by {number.name}") as raised:
            signal.raise_signal(number)
        assert raised.value.signal == number
        with stop.deferred():
            signal.raise_signal(number)
        assert stop.received == number
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_does_not_wait_unless_it_has_to():
    with StopSignals() as stop, stop.deferred():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped, match="SIGINT"):
            signal.raise_signal(signal.SIGINT)
        assert stop.received == signal.SIGTERM
    with StopSignals() as stop, stop.deferred(patient=True):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.received == signal.SIGINT


def test_the_first_signal_is_the_one_that_is_noted():
    with StopSignals() as stop, stop.deferred(patient=True):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == signal.SIGINT


def test_after_a_part_that_must_not_be_torn_a_signal_is_raised_at_once():
    with StopSignals() as stop:
        with stop.deferred():
            pass
        with pytest.raises(Stopped, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)


def test_a_walk_ends_when_a_signal_was_noted():
    with StopSignals() as stop, stop.deferred():
        walk = stop.interruptible([1, 2, 3])
        assert next(walk) == 1
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            next(walk)


def test_other_threads_leave_signals_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def enter():
        with StopSignals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
