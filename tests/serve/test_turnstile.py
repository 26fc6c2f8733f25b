"""The turnstile between batches and slow work, in threads by itself."""

import itertools
import threading
import time

from gindex.serve.turnstile import SLOW_SHARE, Turnstile


def test_a_batch_begins_at_once_and_slow_work_stands_still_until_its_end():
    turnstile, began, end = Turnstile(), threading.Event(), threading.Event()

    def batch():
        with turnstile.batch():
            began.set()
            end.wait(30)

    thread = threading.Thread(target=batch)
    with turnstile.slow():
        assert not turnstile.wanted
        thread.start()
        assert began.wait(30) and turnstile.wanted  # slow work has not said that it stands still
        threading.Timer(0.2, end.set).start()
        turnstile.give_way()
        assert end.is_set() and not turnstile.wanted
    thread.join(30)


def test_no_batch_meets_what_is_to_be_alone():
    turnstile, order = Turnstile(), []

    def batch():
        with turnstile.batch():
            order.append("batch")

    thread = threading.Thread(target=batch)
    with turnstile.slow():
        with turnstile.alone():
            thread.start()
            time.sleep(0.2)
            order.append("alone")
        thread.join(30)
    assert order == ["alone", "batch"]


def test_slow_work_has_its_share_between_batches_without_end():
    turnstile, stop, batches = Turnstile(), threading.Event(), []

    def run():
        while not stop.is_set():
            with turnstile.batch():
                began = time.monotonic()
                time.sleep(0.02)
                batches.append((began, time.monotonic()))

    thread = threading.Thread(target=run)
    with turnstile.slow():
        thread.start()
        while len(batches) < 10:
            turnstile.give_way()
            time.sleep(0.001)
        stop.set()
    thread.join(30)
    for (began, ended), (following, _) in itertools.pairwise(batches[:10]):
        assert following - ended >= SLOW_SHARE * (ended - began)
