"""Being asked to leave: noted once, then passed on, and nothing left behind."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from ckpt_callbacks import signals
from ckpt_callbacks.signals import Signals, exit_code


@pytest.fixture(autouse=True)
def no_echo(monkeypatch):
    """A test's second signal comes at once, and means it."""
    monkeypatch.setattr(signals, "ECHO_SECONDS", 0.0)


@pytest.fixture
def received():
    """A SIGTERM handler of the program's own, and what it got."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    yield got
    signal.signal(signal.SIGTERM, before)


def test_the_first_signal_is_noted_and_the_second_passed_on(received):
    """One SIGTERM waits for the boundary; a second one reaches the program's own handler."""
    request = Signals({"SIGTERM": True}, still_running=lambda _: True)
    request.install()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (request.came, received) == (signal.SIGTERM, [])
    os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_an_echo_is_no_second_signal(received, monkeypatch):
    """A scheduler signals the group, and a script passes its own on: that is one SIGTERM. Ctrl-C is typed twice."""
    monkeypatch.setattr(signals, "ECHO_SECONDS", 3600.0)
    for number, passed_on in ((signal.SIGTERM, 0), (signal.SIGINT, 1)):
        typed: list[int] = []
        outer = signal.signal(number, lambda number, frame, typed=typed: typed.append(number))
        request = Signals({signal.Signals(number).name: True}, still_running=lambda _: True)
        request.install()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert (request.came, len(typed)) == (number, passed_on)
        request.remove()
        signal.signal(number, outer)


def test_after_fit_the_programs_handler_is_back(received):
    """Removing puts back what was there before."""
    request = Signals({"SIGTERM": True}, still_running=lambda _: True)
    request.install()
    request.remove()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (request.came, received) == (None, [signal.SIGTERM])


def test_a_fit_that_died_of_an_exception_notes_nothing(received):
    """Keras has no hook for exceptions; once the fit is gone, signals go where they went before."""
    request = Signals({"SIGTERM": True}, still_running=lambda _: False)
    request.install()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (request.came, received) == (None, [signal.SIGTERM])


def test_one_that_is_gone_below_another_is_passed_through(received):
    """A fit that died of an exception may be collected while a later one runs: its handler lies below that one's."""
    dead = Signals({"SIGTERM": True}, still_running=lambda _: False)
    dead.install()
    request = Signals({"SIGTERM": True}, still_running=lambda _: True)
    request.install()
    dead.remove()
    os.kill(os.getpid(), signal.SIGTERM)
    assert request.came == signal.SIGTERM
    request.answer()
    assert received == [signal.SIGTERM]


def test_one_that_another_thread_removes_leaves_no_handler(received):
    """Who notices that a fit is gone may be a thread, and only the main thread may set handlers: it does so for it."""
    outer = signal.getsignal(signal.SIGTERM)
    request = Signals({"SIGTERM": True}, still_running=lambda _: True)
    request.install()
    thread = threading.Thread(target=request.remove)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is outer


def test_one_that_is_gone_below_another_is_not_put_back(received):
    """Fits that died leave no layers: the one above puts back what was there before all of them."""
    outer = signal.getsignal(signal.SIGTERM)
    layers = [Signals({"SIGTERM": True}, still_running=lambda _: True) for _ in range(3)]
    for layer in layers:
        layer.install()
    for layer in layers:
        layer.remove()
    assert signal.getsignal(signal.SIGTERM) is outer


def test_one_that_is_gone_is_inert(received):
    """A handler installed over ours may call ours for ever: all is passed on, even if the fit seems to run."""
    request = Signals({"SIGTERM": True}, still_running=lambda _: True, obey=lambda *_: pytest.fail("no fit obeys"))
    request.install()
    ours = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, frame: ours(number, frame))
    request.remove()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (request.came, received) == (None, [signal.SIGTERM])


def test_the_framework_sees_to_it_that_a_signal_is_obeyed(received):
    """Where the handler before only takes notes: at the boundary, and at once for a second signal."""

    def obey(handler, number, frame):
        handler(number, frame)
        raise SystemExit(exit_code(number))

    for ask in (lambda request: request.answer(), lambda _: os.kill(os.getpid(), signal.SIGTERM)):
        outer = signal.getsignal(signal.SIGTERM)
        request = Signals({"SIGTERM": True}, still_running=lambda _: True, obey=obey)
        request.install()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit, match="143"):
            ask(request)
        assert signal.getsignal(signal.SIGTERM) is outer
    assert received == [signal.SIGTERM] * 2


def test_without_an_own_handler_the_process_leaves():
    """By the exit code that shells and schedulers know; Ctrl-C as Python has it."""
    outer = signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, error in (("SIGUSR1", SystemExit), ("SIGINT", KeyboardInterrupt)):
        request = Signals({name: True}, still_running=lambda _: True)
        request.install()
        os.kill(os.getpid(), signal.Signals[name])
        assert request.leaves
        with pytest.raises(error) as left:
            request.answer()
        assert name == "SIGINT" or left.value.code == 138
        assert request.came is None
        assert signal.getsignal(signal.Signals[name]) in (signal.SIG_DFL, signal.default_int_handler)
    signal.signal(signal.SIGINT, outer)


def test_what_was_ignored_is_noted_and_ignored():
    """`nohup python train.py &`: Ctrl-C of the terminal saves at most; SIGTERM is listened to after it as before."""
    outer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = Signals({"SIGINT": True, "SIGTERM": True}, still_running=lambda _: True)
    request.install()
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert request.came == number
            if number == signal.SIGINT:
                request.answer()
    finally:
        request.remove()
        signal.signal(signal.SIGINT, outer)


def test_one_that_does_not_leave_is_noted_again(received):
    """`on_signal("SIGUSR2", leave=False)`: each time."""
    request = Signals({"SIGUSR2": False, "SIGNOSUCH": True}, still_running=lambda _: True)
    request.install()
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGUSR2)
        assert (request.came, request.leaves) == (signal.SIGUSR2, False)
        request.answer()
    request.remove()
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


def test_who_asks_for_a_snapshot_amid_a_replay_gets_it_later():
    """There is nothing to save yet; by itself that signal would end the process."""
    request = Signals({"SIGUSR2": False}, still_running=lambda _: False)
    request.install()
    os.kill(os.getpid(), signal.SIGUSR2)
    request.remove()
    assert request.came == signal.SIGUSR2


def test_only_a_second_signal_to_leave_is_obeyed_at_once(received):
    """Two snapshots asked for are no reason to die; and who asks to leave after that is heard."""
    request = Signals({"SIGUSR2": False, "SIGTERM": True}, still_running=lambda _: True)
    request.install()
    for name, noted in (("SIGUSR2", "SIGUSR2"), ("SIGUSR2", "SIGUSR2"), ("SIGTERM", "SIGTERM"), ("SIGUSR2", "SIGTERM")):
        os.kill(os.getpid(), signal.Signals[name])
        assert request.came.name == noted
    assert received == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_the_death_of_children_is_not_heard_before_the_answer(received):
    """A signal to the whole group ends a loader's workers; torch's handler would raise amid the batch."""
    deaths = []
    before = signal.signal(signal.SIGCHLD, lambda *_: deaths.append(1))
    request = Signals({"SIGTERM": True}, still_running=lambda _: True)
    request.install()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGCHLD)
        assert deaths == []
        request.answer()
        os.kill(os.getpid(), signal.SIGCHLD)
        assert deaths == [1]
    finally:
        request.remove()
        signal.signal(signal.SIGCHLD, before)


def test_children_leave_it_to_their_parent():
    """A loader's worker that was forked has our handlers: SIGTERM ends it, Ctrl-C does not."""
    request = Signals({"SIGTERM": True, "SIGINT": True}, still_running=lambda _: True)
    request.install()
    try:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    finally:
        request.remove()
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_only_the_main_thread_installs_handlers():
    """In another thread nothing is installed, and nothing fails."""
    before = signal.getsignal(signal.SIGTERM)
    request = Signals({"SIGTERM": True}, still_running=lambda _: True)
    thread = threading.Thread(target=request.install)
    thread.start()
    thread.join()
    request.remove()
    assert signal.getsignal(signal.SIGTERM) is before


def test_exit_code():
    """As shells count: 143 for SIGTERM."""
    assert exit_code(signal.SIGTERM) == 143
