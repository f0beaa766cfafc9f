"""Fixtures that several test files share. Helpers are modules of tests/helpers (pythonpath in pyproject.toml)."""

import signal

import pytest


@pytest.fixture(autouse=True)
def keep_signal_handler():
    """`refattn train` takes Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(scope="module")
def model():
    """A small network with random weights."""
    from explanation_cases import network  # and with it all of refattn: not for the tests that do without

    return network()
