"""Work in several threads at once."""

import threading


def in_threads(work, count):
    """Call work(0) to work(count - 1), each in a thread of its own, and wait for all of them."""
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
