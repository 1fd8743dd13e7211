"""Things made ahead of their use, in a thread."""

import atexit
import contextlib
import os
import queue
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from ..errors import EngineError

T = TypeVar("T")


def step_back() -> None:
    """From now on this thread runs when no other one wants the processor."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


class Prefetcher(Generic[T]):
    """An iterator over `items` whose next `ahead` items are being made in a thread, which starts with the first `next`.

    An exception that ends `items` is raised by the `next` that would have given the item, and by all later ones. The
    thread ends after it, when the prefetcher is no longer used, or the interpreter exits.
    """

    def __init__(self, items: Iterator[T], ahead: int, name: str) -> None:
        self._worker: _Worker[T] = _Worker(items, ahead, name)
        self._failure: BaseException | None = None
        # The thread does not know the prefetcher, so that it does not keep it alive.
        weakref.finalize(self, self._worker.stop).atexit = False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._failure is not None:
            raise self._failure
        if self._worker.ident is None:
            self._worker.start()
        elif not self._worker.is_alive() and self._worker.made.empty():
            raise EngineError("the thread that reads ahead is gone: build the net in the process that runs it")
        item, failure = self._worker.made.get()
        if failure is not None:
            self._failure = failure
            raise failure
        self._worker.room.release()
        assert item is not None
        return item


class _Worker(threading.Thread, Generic[T]):
    def __init__(self, items: Iterator[T], ahead: int, name: str) -> None:
        # A daemon, since the interpreter waits for other threads before it lets anybody stop them.
        super().__init__(name=name, daemon=True)
        self.made: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self.room = threading.Semaphore(ahead)
        self._items: Iterator[T] | None = items
        self._stopped = False

    def start(self) -> None:
        _running.add(self)
        super().start()

    def run(self) -> None:
        items, self._items = self._items, None
        assert items is not None
        step_back()
        try:
            while True:
                self.room.acquire()
                if self._stopped:
                    return
                self.made.put((next(items), None))
        except BaseException as failure:
            self.made.put((None, failure))

    def stop(self) -> None:
        """Ends the thread once it has made the item that it is at."""
        self._stopped = True
        self.room.release()


_running: "weakref.WeakSet[_Worker[Any]]" = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Native code must not be running any more when the interpreter is taken down."""
    workers = list(_running)
    for worker in workers:
        worker.stop()
    for worker in workers:
        worker.join()
