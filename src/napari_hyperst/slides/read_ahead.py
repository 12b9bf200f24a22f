"""Reading ahead: tasks run in worker threads while the consumer is at work on what came before."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor


def read_ahead[T](tasks: Iterable[Callable[[], T]], workers: int, depth: int) -> Generator[tuple[T, float], None, None]:
    """Run tasks in threads, ahead of the consumer, and yield their results in order.

    Nothing is begun before the first result is asked for; closing the generator drops what has not begun, waits for
    what has, and ends the threads.

    Parameters
    ----------
    tasks
        What to run; taken from the iterable, in the consumer's thread, only when there is room ahead.
    workers
        How many threads.
    depth
        The most tasks to be ahead of the one the consumer has or waits for; 0 reads nothing ahead.

    Yields
    ------
    result, seconds
        What the task returned, and how long the consumer waited for it.

    Raises
    ------
    Exception
        What a task raised, or the iterable, in the place of its result; nothing comes after.
    """
    waiting: deque[Future[T]] = deque()
    left = iter(tasks)
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="read-ahead") as pool:
        try:
            while True:
                asked = time.perf_counter()
                _fill(waiting, left, pool, depth + 1)
                if not waiting:
                    return
                result = waiting.popleft().result()
                yield result, time.perf_counter() - asked
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _fill[T](waiting: deque[Future[T]], left: Iterator[Callable[[], T]], pool: ThreadPoolExecutor, length: int) -> None:
    while len(waiting) < length:
        try:
            waiting.append(pool.submit(next(left)))
        except StopIteration:
            return
        except Exception as error:  # of the iterable: told when its turn comes, as if the task had failed
            waiting.append(Future())
            waiting[-1].set_exception(error)
            return
