"""Memory that grows by millions of objects at once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's cyclic garbage collector while very many objects are made that all stay.

    It would look through all of them again and again, find nothing, and take a third of the time of a plan of a
    million jobs. What is unreachable is still freed by its reference count; cycles wait until the end of the block.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
