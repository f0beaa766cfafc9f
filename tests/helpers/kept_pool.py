"""Processes that stay for all tests of a file: each takes seconds to import what it needs."""

import concurrent.futures

from refattn.prediction import processes


def _told(order, function, piece):
    """function(piece) in a process that is told its order with every piece, and not where it begins."""
    processes._order = order
    return function(piece)


class KeptPool:
    """A pool of processes in the place of those that predict_sources starts and ends."""

    def __init__(self, n, context):
        self.pool = concurrent.futures.ProcessPoolExecutor(n, context)
        self.order = None

    def started(self, n, context, begin, order):
        """What ProcessPoolExecutor gives."""
        assert begin is processes._begin
        self.order = order
        return self

    def submit(self, function, piece):
        return self.pool.submit(_told, self.order, function, piece)

    def shutdown(self, wait, cancel_futures):
        """They stay."""
