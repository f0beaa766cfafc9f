"""Another implementation beside the oracle: which layer is the first to differ."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from refattn.errors import DataError
from refattn.testing.oracle import DTYPES, Oracle, read_oracle

# Largest difference allowed, over the largest entry of the array, where the order of sums may differ
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came out: rows of (name, largest difference over the largest entry, whether it is small enough).

    The outputs come first, in the order of the network, and then the gradients, in the order of the way back.
    """

    rows: list[tuple[str, float, bool]]
    missing: list[str]

    @property
    def first(self) -> str | None:
        """The first array that differs, such as "layer1.alpha" or "grad hidden_w"; None where all agree."""
        return next((name for name, _, same in self.rows if not same), None)

    def __str__(self) -> str:
        lines = [f"{name:<28} {error:9.1e}  {'' if same else 'DIFFERS'}".rstrip() for name, error, same in self.rows]
        said = f"the first that differs: {self.first}" if self.first else f"all {len(self.rows)} agree"
        return "\n".join([*lines, said, *([f"not given: {', '.join(self.missing)}"] if self.missing else [])])

    def check(self) -> None:
        """Raise AssertionError, with the table, where an array differs."""
        if self.first:
            raise AssertionError(str(self))


def compare(
    function: Callable, oracle: Oracle | Path | str, dtype: str = "float64", tolerance: float | None = None
) -> Comparison:
    """Compare an implementation, in whatever framework, with an oracle.

    Parameters
    ----------
    function : callable (weights, graph, label) -> outputs, or (outputs, grads)
        weights: name -> array; graph: a GraphBatch; label: (S, K), all NumPy arrays of `dtype`. outputs: name -> array
        of refattn.testing.outputs_of, as many as there are; the more, the better is the error located. grads: name of a
        parameter -> gradient of the mean of (prediction - label)^2. Arrays may be NumPy's, PyTorch's or JAX's.
    oracle : Oracle, or the path of its file
    dtype : "float64" or "float32"
    tolerance : float, optional     by default 1e-10 in float64, 1e-4 in float32

    Returns
    -------
    Comparison

    Raises DataError for an output with an unknown name or another shape.
    """
    oracle = oracle if isinstance(oracle, Oracle) else read_oracle(oracle)
    if dtype not in DTYPES:
        raise DataError(f"there is no precision {dtype!r}; choose one of {', '.join(DTYPES)}")
    step = oracle.steps[dtype]
    weights = {name: array.copy() for name, array in step.parameters.items()}
    found = function(weights, oracle.graph.with_type(np.dtype(dtype)), oracle.label.astype(dtype))
    outputs, grads = found if isinstance(found, tuple) else (found, {})
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    rows = _rows(step.outputs, outputs, "", tolerance)
    backwards = dict(reversed(step.grads.items()))
    largest = max(np.abs(array).max(initial=0) for array in backwards.values())
    rows += _rows(backwards, grads, "grad ", tolerance, largest)
    wanted = [*step.outputs, *(f"grad {name}" for name in backwards)] if grads else [*step.outputs]
    return Comparison(rows, [name for name in wanted if name not in {row[0] for row in rows}])


def _rows(expected, found: Mapping, prefix, tolerance, largest=0.0):
    """A row for each array that is found; small gradients are measured by the largest of all."""
    unknown = found.keys() - expected.keys()
    if unknown:
        raise DataError(f"the oracle has no {prefix}{min(unknown)}; it has {', '.join(expected)}")
    rows = []
    for name, wanted in expected.items():
        if name not in found:
            continue
        array = found[name]
        array = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)
        if array.shape != wanted.shape:
            raise DataError(f"{prefix}{name} has shape {array.shape} and not {wanted.shape}")
        scale = max(np.abs(wanted).max(initial=0), 1e-3 * largest) or 1.0
        error = float(np.abs(array - wanted).max(initial=0) / scale)
        rows.append((prefix + name, error, error <= tolerance))
    return rows
