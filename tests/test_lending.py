"""What is few is lent in the order in which threads ask, whatever cuts a loan off."""

import itertools
import linecache
import sys
import threading

import pytest

from sdk.errors import ClosedError
from sdk.runtime import lending
from sdk.runtime.lending import Pool, Turns
from tests.support.fairness import check_fair
from tests.support.threads import in_threads, wait_for


class Thing:
    pass


@pytest.fixture
def waiting():
    """A function that lends a pool's one thing and lets `count` threads ask for it one after the other: (pool, the
    numbers of those served, the thing).
    """
    threads = []

    def begin(count):
        pool, served = Pool(Thing, 1), []
        held = pool.take()

        def work(number):
            thing = pool.take()
            served.append(number)
            pool.give_back(thing)

        for number in range(count):
            threads.append(threading.Thread(target=work, args=(number,), daemon=True))
            threads[-1].start()
            wait_for(lambda number=number: len(pool._row) == number + 1)
        return pool, served, held

    yield begin
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)


def test_who_came_first_is_served_first(waiting):
    pool, served, held = waiting(20)
    pool.give_back(held)
    wait_for(lambda: len(served) == 20)
    assert served == list(range(20))


def test_who_gives_back_and_asks_again_is_served_last(waiting):
    pool, served, held = waiting(5)
    pool.give_back(held)
    pool.give_back(pool.take())
    assert served == list(range(5))


def test_what_is_free_besides_is_taken_without_waiting():
    pool = Pool(Thing, 3)
    first = pool.take()
    assert pool.take_free(0) == [] and len(pool.take_free(1)) == 1
    more = pool.take_free(5)  # the third is made now, and there is no fourth
    assert len(more) == 1 and more[0] is not first and pool.take_free(5) == []
    for thing in pool.every():
        pool.give_back(thing)
    assert len({id(pool.take()), *map(id, pool.take_free(5))}) == 3


def test_nothing_besides_is_taken_while_others_wait():
    pool, taken = Pool(Thing, 2), []
    held = [pool.take(), *pool.take_free(1)]
    other = threading.Thread(target=lambda: taken.append(pool.take()), daemon=True)
    other.start()
    wait_for(lambda: len(pool._row) == 1)
    with pool._lock:  # the other has not been served yet
        pool._holders[held[1]] = None
        assert pool.take_free(1) == []
    wait_for(lambda: taken == [held[1]])
    other.join(timeout=30)


def test_a_closed_pool_gives_nothing_besides():
    pool = Pool(Thing, 2)
    pool.take()
    pool.close(0)
    assert pool.take_free(1) == []


@pytest.mark.parametrize("threads", [4, 8, 32])
@pytest.mark.parametrize("limit", [1, 3])
def test_threads_are_served_evenly_and_in_the_order_of_their_coming(limit, threads):
    pool = Pool(Thing, limit)
    check_fair(pool, lambda: pool.give_back(pool.take()), threads, 500)


def test_turns_are_taken_one_at_a_time_and_evenly():
    turns, inside, most = Turns(1), [], []

    def call():
        with turns:
            inside.append(None)
            most.append(len(inside))
            inside.pop()

    check_fair(turns._places, call, 8, 100)
    assert set(most) == {1}


def test_no_more_is_made_than_is_needed_and_than_there_may_be():
    pool, barrier = Pool(Thing, 3), threading.Barrier(3)
    for _ in range(5):
        pool.give_back(pool.take())
    assert len(pool.every()) == 1

    def work(_):
        thing = pool.take()
        barrier.wait(30)  # all three at once
        pool.give_back(thing)

    in_threads(work, 3)
    in_threads(lambda _: pool.give_back(pool.take()), 9)
    assert len(pool.every()) == 3


def test_where_no_more_can_be_made_the_callers_share_what_there_is():
    things = iter([Thing(), None])
    pool = Pool(lambda: next(things), 3)
    held, served = pool.take(), []

    def work(_):
        thing = pool.take()
        served.append(thing)
        pool.give_back(thing)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(pool._row) == 4)
    pool.give_back(held)
    for thread in threads:
        thread.join(timeout=30)
    assert served == [held] * 4


def test_a_thing_that_cannot_be_made_is_the_first_askers_error_and_the_next_may_try():
    outcomes = iter([None, ValueError("no"), None])

    def make():
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        return Thing()

    pool = Pool(make, 2)
    held, heard = pool.take(), []

    def work(_):
        try:
            heard.append(pool.take())
        except ValueError as error:
            heard.append(str(error))

    in_threads(work, 1)
    in_threads(work, 1)
    assert heard[0] == "no" and isinstance(heard[1], Thing) and heard[1] is not held


def interrupted_at(line, call):
    """Call `call`, raising KeyboardInterrupt before the `line`-th line of `sdk.runtime.lending` that it comes to, as
    Ctrl-C may. Whether it came that far. Python hears nothing between a `with` block and its native lock's release.
    """
    seen = iter(range(line + 1))

    def trace(frame, event, _):
        if frame.f_code.co_filename != lending.__file__:
            return None
        entering_or_leaving = linecache.getline(lending.__file__, frame.f_lineno).lstrip().startswith("with ")
        if event == "line" and not entering_or_leaving and next(seen, None) == line:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("lent", [False, True], ids=["free", "lent"])
def test_an_interrupt_at_any_line_loses_nothing_and_holds_nobody_up(lent):
    for line in itertools.count():
        pool, served, held = Pool(Thing, 1), [], []
        if lent:  # by another thread, until this one waits
            in_threads(lambda _, pool=pool, held=held: held.append(pool.take()), 1)
            threading.Timer(0.02, lambda pool=pool, held=held: pool.give_back(held[0])).start()
        reached = interrupted_at(line, pool.take)
        thing = pool.take()  # the one it still holds, or the one that others gave back
        assert pool.every() == [thing]
        pool.give_back(thing)
        in_threads(lambda _, pool=pool, served=served: served.append(pool.take()), 1)
        assert served == [thing] and not pool._row
        if not reached:
            break
    assert line > 10


def test_a_loan_cut_off_after_it_began_is_the_threads_next_loan():
    pool = Pool(Thing, 2)
    first = pool.take()  # and an interrupt before the line after it
    assert pool.take() is first
    pool.give_back(first)
    assert len(pool.every()) == 1


def test_closing_tells_those_who_wait_and_says_what_is_still_held():
    pool, heard = Pool(Thing, 1), []
    held = pool.take()

    def work(_):
        with pytest.raises(ClosedError, match="the estimator is closed"):
            pool.take()
        heard.append("closed")

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(pool._row) == 3)
    assert pool.close(0.0) == ([held], [])  # this thread's own is its own to free
    for thread in threads:
        thread.join(timeout=30)
    assert heard == ["closed"] * 3
    elsewhere = []
    in_threads(lambda _: elsewhere.append(pool.close(0.01)), 1)
    assert elsewhere == [([], [held])]


def test_turns_are_given_back_when_the_block_fails():
    turns = Turns(1)
    with pytest.raises(ValueError, match="inside"), turns:
        raise ValueError("inside")
    with turns:
        pass


def test_who_wants_another_than_those_he_had_waits_for_it():
    pool, given = Pool(object, limit=2), []
    first, second = pool.all()
    assert pool.take(but=[first]) is second
    other = threading.Thread(target=lambda: given.append(pool.take(but=[first])))
    other.start()
    other.join(0.3)
    assert other.is_alive() and not given, "what is free is not what it asks for"
    pool.give_back(second)
    other.join(60)
    assert given == [second]
    pool.close(0)
    with pytest.raises(ClosedError):
        pool.all()


def test_where_one_more_cannot_be_made_what_was_taken_besides_is_given_back():
    made = itertools.count()

    def make():
        if next(made) == 2:
            raise ValueError("no")
        return Thing()

    pool = Pool(make, 3)
    pool.take()
    with pytest.raises(ValueError, match="no"):
        pool.take_free(2)
    assert list(pool._holders.values()) == [threading.get_ident(), None], "and what was held before is held"


def test_all_that_a_thread_holds_is_given_back_and_nobody_elses():
    pool, others = Pool(Thing, 3), []
    in_threads(lambda _: others.append(pool.take()), 1)
    pool.take()
    pool.take_free(1)  # and an interrupt before it is told of it
    pool.give_back_all()
    assert [thing for thing, holder in pool._holders.items() if holder is not None] == others
