"""How the controller waits: a Protocol, so that it runs on threads (tests) and in Ryu's hub alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Protocol, TypeVar

T = TypeVar("T")
SLICE_S = 0.01


class Event(Protocol):
    """Set once, waited for by many."""

    def set(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool:
        """True if it is set; False after `timeout` seconds."""
        ...

    def is_set(self) -> bool: ...
    def clear(self) -> None: ...


class Runtime(Protocol):
    """`spawn` starts a function beside the caller and gives a function that waits for its end."""

    def event(self) -> Event: ...
    def spawn(self, function: Callable[[], None]) -> Callable[[], None]: ...
    def pause(self) -> None:
        """Let others run."""
        ...

    def now(self) -> float:
        """Seconds on a clock that never jumps."""
        ...

    def offload(self, function: Callable[[], T], patience: float, meanwhile: Callable[[], object] | None = None) -> T:
        """Run what may block in C in a real thread, and wait for it; raises TimeoutError after `patience` seconds.

        The function goes on then; its result is lost. `meanwhile` is called every SLICE_S seconds of the wait.
        """
        ...


class Threads:
    """The standard library's threads."""

    def event(self) -> Event:
        return threading.Event()

    def spawn(self, function: Callable[[], None]) -> Callable[[], None]:
        thread = threading.Thread(target=function, daemon=True)
        thread.start()
        return thread.join

    def pause(self) -> None:
        return None

    def now(self) -> float:
        return time.monotonic()

    def offload(self, function: Callable[[], T], patience: float, meanwhile: Callable[[], object] | None = None) -> T:
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(function())
            except BaseException as e:  # noqa: BLE001 - it is raised where the result is waited for
                future.set_exception(e)

        threading.Thread(target=work, daemon=True).start()
        deadline = self.now() + patience
        while meanwhile is not None and self.now() < deadline and not wait([future], SLICE_S).done:
            meanwhile()
        return future.result(max(0.0, deadline - self.now()))
