"""Fixtures that several test files share. Helpers are modules of tests/helpers (pythonpath in pyproject.toml)."""

import signal
import sys

import pytest

# Files that take long come early, and first those that compile nothing that others compile too: two processes that
# begin together would both do it. test_cuda.py starts processes, which find the kernels compiled by then.
FIRST = (
    *("tests/ops/test_compiled_bits.py", "tests/ops/test_cpu_vectors.py", "tests/cli/test_cli.py"),
    *("tests/ops/test_ops.py", "tests/benchmarks/test_benchmarks.py", "tests/ops/test_cuda.py"),
    *("tests/network/test_gradcheck.py", "tests/explanation/test_explain.py", "tests/cli/test_fuzz.py"),
    *("tests/docs/test_tutorials.py", "tests/training/test_training.py", "tests/training/test_ranks.py"),
    "tests/test_attacks.py",
)


def pytest_collection_modifyitems(items):
    def rank(item):
        name = item.path.relative_to(item.config.rootpath).as_posix()
        return FIRST.index(name) if name in FIRST else len(FIRST)

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def keep_signal_handler():
    """`refattn train` takes Ctrl-C and SIGTERM."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def undrawn():
    """Pictures of a run are composed, but one of a pixel is drawn: it takes longer than a small training."""
    if "refattn.report.plots" not in sys.modules:
        yield  # no test here trains
        return
    from matplotlib.figure import Figure

    from refattn.report import plots, png

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "write_figure", lambda path, figure, dpi: png.write_figure(path, Figure((0.1, 0.1)), 10))
        yield


@pytest.fixture
def drawn(monkeypatch):
    """Pictures of runs are drawn in this test."""
    from refattn.report import plots, png

    monkeypatch.setattr(plots, "write_figure", png.write_figure)


@pytest.fixture(scope="module")
def model():
    """A small network with random weights."""
    from explanation_cases import network  # and with it all of refattn: not for the tests that do without

    return network()
