"""What this machine and installation are: cores, memory, versions."""

import importlib.metadata
import os
import platform
import sys

PACKAGES = ("numpy", "numba", "scipy", "ase", "h5py", "click", "threadpoolctl", "matplotlib", "tblite")


def available_cores():
    """Cores that this process may use: the number of threads by default."""
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may have fewer cores than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_mb():
    """Largest resident memory of this process so far, in MB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def versions():
    """Versions of Python, refattn and the libraries it stands on; an optional one that is missing is left out."""
    found = {"python": platform.python_version()}
    for name in ("refattn", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
