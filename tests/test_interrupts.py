"""What stops a program: Ctrl-C, SIGTERM and SIGHUP are one, wait where they must, and leave others' handlers alone."""

import os
import signal
import threading

import pytest

from sdk.interrupts import STOPS, held_back, stop_handled_by, stopping_alike

pytestmark = pytest.mark.filterwarnings("error")


def handlers():
    return [signal.getsignal(number) for number in STOPS]


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_each_raises_keyboard_interrupt_and_the_handlers_come_back(number):
    before = handlers()
    with pytest.raises(KeyboardInterrupt), stopping_alike():
        signal.raise_signal(number)
    assert handlers() == before


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_alike():
            signal.raise_signal(signal.SIGHUP)
            with held_back():
                signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_it_waits_until_the_block_has_ended_and_is_heard_once(number):
    done = []
    with pytest.raises(KeyboardInterrupt), stopping_alike():
        with held_back():
            signal.raise_signal(number)
            signal.raise_signal(number)
            done.append("block")
        done.append("after")
    assert done == ["block"]


def test_a_block_that_fails_is_told_before_the_signal():
    with pytest.raises(ValueError, match="fault"), stopping_alike(), held_back():
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("fault")


def test_a_handler_of_its_own_hears_all_of_them():
    heard = []
    with stopping_alike(), stop_handled_by(lambda number, _: heard.append(number)):
        for number in STOPS:
            signal.raise_signal(number)
    assert heard == list(STOPS)


def test_outside_the_main_thread_nothing_changes():
    seen = []

    def work():
        with stopping_alike(), held_back(), stop_handled_by(lambda *_: None):
            seen.append(handlers())

    before = handlers()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_forked_worker_ends_as_it_would_without():
    with stopping_alike():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(3)
        assert os.waitpid(child, 0)[1] == signal.SIGTERM
