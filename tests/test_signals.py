"""Being asked to leave: noted once, then passed on, and nothing left behind."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from ckpt_callbacks.signals import LeaveRequest, exit_code


@pytest.fixture
def received():
    """A SIGTERM handler of the program's own, and what it got."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    yield got
    signal.signal(signal.SIGTERM, before)


def test_the_first_signal_is_noted_and_the_second_passed_on(received):
    """One SIGTERM waits for the boundary; a second one reaches the program's own handler."""
    request = LeaveRequest(still_running=lambda: True)
    request.install()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (request.signal, received) == (signal.SIGTERM, [])
    os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_after_fit_the_programs_handler_is_back(received):
    """Removing puts back what was there before."""
    request = LeaveRequest(still_running=lambda: True)
    request.install()
    request.remove()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (request.signal, received) == (None, [signal.SIGTERM])


def test_a_fit_that_died_of_an_exception_notes_nothing(received):
    """Keras has no hook for exceptions; once the fit is gone, signals go where they went before."""
    request = LeaveRequest(still_running=lambda: False)
    request.install()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (request.signal, received) == (None, [signal.SIGTERM])


def test_only_the_main_thread_installs_handlers():
    """In another thread nothing is installed, and nothing fails."""
    before = signal.getsignal(signal.SIGTERM)
    request = LeaveRequest(still_running=lambda: True)
    thread = threading.Thread(target=request.install)
    thread.start()
    thread.join()
    request.remove()
    assert signal.getsignal(signal.SIGTERM) is before


def test_exit_code():
    """As shells count: 143 for SIGTERM."""
    assert exit_code(signal.SIGTERM) == 143
