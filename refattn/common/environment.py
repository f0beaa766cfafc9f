"""What this machine and installation are: cores, memory, versions."""

import functools
import os
import platform
import sys

from refattn.errors import RefattnError

PACKAGES = ("numpy", "numba", "scipy", "ase", "h5py", "click", "threadpoolctl", "matplotlib", "tblite")
CUDA_PACKAGES = ("numba-cuda", "cupy-cuda13x", "cupy-cuda12x")
# How many processes a launcher started, by its own word, and which of them this is: MPICH and Intel MPI, Open MPI,
# MVAPICH, Flux, and srun, which comes last because others start their helpers by it.
LAUNCHERS = {
    "PMI_SIZE": "PMI_RANK",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_SIZE": "MV2_COMM_WORLD_RANK",
    "FLUX_JOB_SIZE": "FLUX_TASK_RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
}


def available_cores() -> int:
    """Cores that this process may use: the number of threads by default."""
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may have fewer cores than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def launched() -> tuple[int, int]:
    """How many processes a launcher of parallel programs started, and the number of this one; 1, 0 without one."""
    found = next(((size, number) for size, number in LAUNCHERS.items() if size in os.environ), ("", ""))
    size, number = (os.environ.get(name, "") for name in found)
    return int(size) if size.isdecimal() else 1, int(number) if number.isdecimal() else 0


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far, in MB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def devices() -> list[str]:
    """Names of the devices that this machine has, for `--device`."""
    from refattn.ops import BACKENDS, load_backend  # which stand on Numba: imported where they are asked for

    try:
        load_backend("cuda")
    except RefattnError:  # no extra, no driver, no GPU
        return [*reversed(BACKENDS)]
    return [*reversed(BACKENDS), "cuda"]


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            names = [line.partition(":")[2].strip() for line in stream if line.startswith("model name")]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python, refattn and the libraries it stands on; an optional one that is missing is left out."""
    found = {name: _version(name) for name in ("refattn", *PACKAGES, *CUDA_PACKAGES)}
    return {"python": platform.python_version(), **{name: text for name, text in found.items() if text}}


@functools.cache  # a checkpoint has them, and a training writes many
def _version(name):
    import importlib.metadata  # a third of the time of `refattn --help`

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
