"""What a command should say of the machinery below it: what takes long, such as kernels that are being compiled."""

import functools
from collections.abc import Callable

COMPILING = (
    "compiling kernels, half a minute to a minute, once on this machine for this kind of network and each of predict, "
    "explain and train (refattn warmup does it beforehand)"
)
_listeners: list[Callable[[str], None]] = []


def listen(say: Callable[[str], None]) -> None:
    """Let `say` be told, in the place of who was before."""
    _listeners[:] = [say]


def tell(text: str) -> None:
    """Let those who listen know."""
    for say in _listeners:
        say(text)


@functools.cache
def watch_compilation() -> None:
    """Tell who listens when kernels of refattn are compiled for the first time, and not read from the disk."""
    from numba.core import event

    class First(event.Listener):
        told = False

        def on_start(self, event: event.Event) -> None:
            if not self.told and event.data["dispatcher"].py_func.__module__.startswith("refattn"):
                self.told = True
                tell(COMPILING)

        def on_end(self, event: event.Event) -> None:
            pass

    event.register("numba:compile", First())
