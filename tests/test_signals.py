"""Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import threading

import pytest

from bgjobs._runs.threads import waits
from bgjobs._signals import on_stop_signal
from stage import Waiter


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop(number: signal.Signals) -> None:
    """Its echo, as of a signal to a process and to its group, is no second one."""
    stopped = Waiter()
    with on_stop_signal(stopped):
        signal.raise_signal(number)
        signal.raise_signal(number)
        stopped.wait()
    assert len(stopped.seen) == 1


def test_a_second_ctrl_c_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time of an echo, the handler from before is called."""
    monkeypatch.setattr(waits, "echo", -1)
    stopped = Waiter()
    with pytest.raises(KeyboardInterrupt), on_stop_signal(stopped):  # noqa: PT012
        for _ in range(1000):  # two that come together are one for Python
            signal.raise_signal(signal.SIGINT)
    assert len(stopped.seen) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_outside_the_main_thread_nothing_is_done() -> None:
    """Python takes no handlers there; the block runs all the same."""
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with on_stop_signal(lambda: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_other_signals_are_left_to_their_handlers() -> None:
    """A signal that somebody else handles meanwhile asks for nothing."""
    stopped, other = Waiter(), Waiter()
    before = signal.signal(signal.SIGUSR1, lambda *_: other())
    try:
        with on_stop_signal(stopped):
            signal.raise_signal(signal.SIGUSR1)
            assert stopped.seen == []
            signal.raise_signal(signal.SIGTERM)
            stopped.wait()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(other.seen) == 1
