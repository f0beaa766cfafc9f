"""Under NUMBA_DISABLE_JIT=1 the kernels run as plain Python, and pass the tests of the compiled ones."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
# What the vectors do, whole networks of both variants with dropout against the reference, and Voronoi cells.
SOME = {
    "ops/test_cpu_vectors.py": "calculate or scaled or products_equal or not_packed",
    "network/test_network.py": "backends_agree",
    "structures/test_voronoi.py": "equivalent_facets or lone_atom",
}


def test_kernels_in_plain_python(tmp_path):
    """NUMBA_DISABLE_JIT is read when Numba is imported. A site without edges divides by zero, which NumPy reports."""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    files = [str(TESTS / name) for name in SOME]
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    command += [*files, "-k", " or ".join(SOME.values())]
    result = subprocess.run(command, env=environment, cwd=TESTS, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-5000:]
    assert " passed" in result.stdout
