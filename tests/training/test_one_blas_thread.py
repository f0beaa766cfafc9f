"""What is computed once for a whole run does not depend on how many cores BLAS may use."""

import dataclasses

import numpy as np
import pytest
import threadpoolctl
from small_data import small_config, write_molecules

from refattn.data.groups import k_means
from refattn.report.projection import principal_components
from refattn.training.train import train


def blas_threads():
    """Threads of every BLAS library that is loaded; one that comes with PySCF has one, whatever it is told."""
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture
def seen(monkeypatch):
    """A function that has a function of numpy.linalg note in a list, which it returns, on how many threads it runs."""

    def watch(name, owner=np.linalg):
        found, function = [], getattr(owner, name)

        def noted(*arguments, **options):
            found.extend(blas_threads())
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, noted)
        return found

    with threadpoolctl.threadpool_limits(limits=2, user_api="blas"):
        yield watch


def test_principal_components(seen):
    found, before = seen("eigh"), blas_threads()
    principal_components(np.random.default_rng(0).normal(size=(20, 3)))
    assert {*found} == {1} and blas_threads() == before and 2 in before


def test_clusters(seen):
    from refattn.data import groups

    found, before = seen("_squares", groups), blas_threads()
    k_means(np.random.default_rng(0).normal(size=(20, 3)), 3)
    assert {*found} == {1} and blas_threads() == before and 2 in before


def test_references_of_the_elements(seen, tmp_path):
    config = small_config(write_molecules(tmp_path / "set.h5", n=60), epochs=1)
    found = seen("lstsq")
    train(dataclasses.replace(config, model=dataclasses.replace(config.model, readout="sum")), tmp_path / "run", 2)
    assert found and {*found} == {1}
