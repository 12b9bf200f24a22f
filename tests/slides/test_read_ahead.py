from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from napari_hyperst.slides.read_ahead import read_ahead


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_results_come_in_order_whichever_is_done_first() -> None:
    """The first task cannot end before the second has."""
    second_done = threading.Event()

    def first() -> str:
        assert second_done.wait(10)
        return "first"

    def second() -> str:
        second_done.set()
        return "second"

    found = list(read_ahead([first, second], workers=2, depth=1))
    assert [result for result, _ in found] == ["first", "second"]
    assert all(waited >= 0 for _, waited in found)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_no_more_is_taken_than_there_is_room_for(depth: int) -> None:
    taken = []

    def tasks() -> Iterator[Callable[[], int]]:
        for i in range(10):
            taken.append(i)
            yield lambda i=i: i

    results = read_ahead(tasks(), workers=2, depth=depth)
    assert taken == []
    for i in range(10):
        assert next(results)[0] == i
        assert len(taken) == min(10, i + 1 + depth)
    assert next(results, None) is None
    assert readers() == []


def test_an_exception_is_raised_in_the_place_of_its_result() -> None:
    def tasks() -> Iterator[Callable[[], int]]:
        yield lambda: 0
        yield lambda: 1 // 0
        yield lambda: 2

    results = read_ahead(tasks(), workers=2, depth=2)
    assert next(results)[0] == 0
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert next(results, None) is None
    assert readers() == []


def test_what_the_iterable_raises_comes_in_its_place_too() -> None:
    def tasks() -> Iterator[Callable[[], int]]:
        yield lambda: 0
        raise LookupError("no more")

    results = read_ahead(tasks(), workers=1, depth=3)
    assert next(results)[0] == 0
    with pytest.raises(LookupError, match="no more"):
        next(results)


def test_closing_ends_the_threads_and_begins_nothing_more() -> None:
    begun, go_on = [], threading.Event()

    def task(i: int) -> int:
        begun.append(i)
        if i:
            assert go_on.wait(10)
        return i

    results = read_ahead([lambda i=i: task(i) for i in range(5)], workers=1, depth=4)
    assert next(results)[0] == 0
    threading.Timer(0.05, go_on.set).start()
    results.close()
    assert readers() == []
    assert begun in ([0], [0, 1])


def test_the_time_waited_is_that_of_the_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was ready is not waited for; what is read while the consumer waits is."""
    clock = [0.0]
    monkeypatch.setattr("napari_hyperst.slides.read_ahead.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    done = threading.Event()

    def task() -> None:
        clock[0] += 5
        done.set()

    assert [waited for _, waited in read_ahead([task, task], workers=1, depth=0)] == [5, 5]
    done.clear()
    results = read_ahead([lambda: None, task], workers=2, depth=1)
    next(results)
    assert done.wait(10)
    assert next(results)[1] == 0
