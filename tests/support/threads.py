"""Work in several threads at once."""

import threading
from time import monotonic, sleep


def in_threads(work, count):
    """Call work(0) to work(count - 1), each in a thread of its own, and wait for all of them."""
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wait_for(condition):
    """Until `condition()`; AssertionError after a minute, of which no machine needs more than a part."""
    end = monotonic() + 60
    while not condition():
        assert monotonic() < end, "it did not come about"
        sleep(0.001)
