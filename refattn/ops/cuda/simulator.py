"""Numba's simulator with threads that take turns: quicker, and the same each time.

The simulator lets the threads of a block run as the system likes, and asks all of them without a pause whether they are
done. Here one runs at a time, up to a barrier or its end. The order turns round at each barrier, so that what a thread
reads before another one writes it, for want of a barrier, is wrong each time in one of the two orders.
"""

import threading
from collections import deque

from numba.cuda.simulator import kernel
from numba.cuda.simulator.kernelapi import Dim3

_FREE = []  # threads of Python that wait for a block


class _Worker(threading.Thread):
    """A thread of Python that stands for threads of blocks, one after another. numba.cuda reads its attributes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.turn = threading.Semaphore(0)
        self.start()

    def run(self):
        while True:
            self.turn.acquire()
            block = self.block
            self.blockIdx = block.index
            while block.new and not block.error:
                self.threadIdx = Dim3(block.new.popleft(), 0, 0)
                try:
                    block.function(*block.arguments)
                except Exception as error:
                    block.error = block.error or error
            self.block = None
            _FREE.append(self)
            block.go_on()

    def syncthreads(self):
        """The barrier of the block."""
        self.block.waiting.append(self)
        self.block.go_on()
        self.turn.acquire()
        if self.block.error:
            raise RuntimeError("another thread of the block has failed")


class _Block:
    """A block that runs: who begins, who is at the barrier, who may go on behind it."""

    def __init__(self, function, index, n_threads, arguments):
        self.function = function
        self.arguments = arguments
        self.index = Dim3(*index)
        self.new = deque(range(n_threads))
        self.waiting = []
        self.ready = []
        self.error = None
        self.done = threading.Semaphore(0)

    def go_on(self):
        """Give the turn away. The barrier opens when all wait that have not ended, or when one has failed."""
        if self.error:
            self.new.clear()
        if not self.ready and not self.new:
            self.ready = self.waiting
            self.waiting = []
        if self.ready:
            self.ready.pop().turn.release()  # the last one to wait first
        elif self.new:
            worker = _FREE.pop() if _FREE else _Worker()
            worker.block = self
            worker.turn.release()
        else:
            self.done.release()


def run(manager: kernel.BlockManager, index: tuple[int, ...], *arguments: object) -> None:
    """Run a block, which has one dimension; in the place of BlockManager.run. Raises what a thread of it raises."""
    block = _Block(manager._f, index, manager._block_dim[0], arguments)
    block.go_on()
    block.done.acquire()
    if block.error:
        raise block.error


kernel.BlockManager.run = run
