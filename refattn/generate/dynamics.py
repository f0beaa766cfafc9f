"""Molecular dynamics that makes a labelled set: ASE's Langevin dynamics, a method, snapshots in extended XYZ.

A trajectory is a chain of segments. Each segment starts from the snapshot before it *as written to the
file*, with a fresh calculator and random numbers keyed by (seed, trajectory, segment). So the file is the
checkpoint: a run that was killed goes on from its last complete snapshot, and ends with the same bytes,
whatever the number of processes that the trajectories are spread over.
"""

import concurrent.futures
import contextlib
import dataclasses
import heapq
import io
import json
import multiprocessing
import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import ase.io
import numpy as np
import threadpoolctl
from ase import units
from ase.calculators.calculator import Calculator
from ase.io.extxyz import read_xyz, write_xyz
from ase.md.langevin import Langevin
from ase.optimize import BFGS

from refattn.common.files import remove_leftovers, write_text
from refattn.common.strict_json import to_json
from refattn.errors import DataError
from refattn.generate.methods import Method, failure

SETTINGS = "settings.json"  # beside the trajectories: what they were made with
SAME_ENERGY = 0.01  # eV; a relaxed structure's energy differs by less between machines, and by more between isomers


@dataclasses.dataclass(frozen=True)
class Dynamics:
    """Settings of the dynamics; every trajectory of a set shares them."""

    timestep: float = 2.0  # fs; a C-C stretch has a period of about 20 fs
    friction: float = 0.02  # 1/fs; decorrelates neighbouring snapshots within about 50 fs
    warmup: int = 60  # steps before the first snapshot
    interval: int = 5  # steps between snapshots: 10 fs, half a period of the fastest vibration of carbon
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """One trajectory.

    Attributes
    ----------
    name : str
    start : ase.Atoms               its masses are those of the dynamics
    temperature : float             K
    reference_energy : float        eV, of the relaxed parts; deformation energies count from it
    """

    name: str
    start: ase.Atoms
    temperature: float
    reference_energy: float


def relax(atoms: ase.Atoms, calculator: Calculator, name: str, fmax: float = 0.01) -> tuple[ase.Atoms, float]:
    """A copy of `atoms` without a force above `fmax` (eV/Å), and its energy in eV.

    Raises DataError, naming the structure, if that takes more than 500 steps or the calculator fails.
    """
    atoms = atoms.copy()
    atoms.calc = calculator
    try:
        converged = BFGS(atoms, logfile=None).run(fmax=fmax, steps=500)
        energy = float(atoms.get_potential_energy())
    except Exception as error:  # a calculator raises anything
        raise failure(f"{name}: cannot be relaxed", error) from None
    if not converged:
        raise DataError(f"{name}: not relaxed after 500 steps; start nearer to a minimum")
    atoms.calc = None
    return atoms, energy


def trajectory_names(starts: Iterable[str], temperatures: Sequence[float]) -> dict[tuple[str, float], str]:
    """(structure's name, temperature) -> name of the trajectory, temperature by temperature.

    Raises DataError for temperatures that are not finite and above 0 or that would share a trajectory.
    """
    shown = [f"{t:g}K" for t in temperatures]
    if not all(0 < t < np.inf for t in temperatures):
        raise DataError(f"a temperature of {', '.join(shown)} is not finite and above 0; correct it")
    if len(set(shown)) < len(shown):
        raise DataError(f"the temperatures {', '.join(shown)} name a trajectory twice; give each of them once")
    return {(s, t): f"{s}_{text}" for t, text in zip(temperatures, shown, strict=True) for s in starts}


def generate(
    trajectories: list[Trajectory],
    n_snapshots: int,
    folder: Path,
    dynamics: Dynamics,
    method: Method,
    jobs: int = 1,
    progress: Callable[..., None] | None = None,
) -> list[Path]:
    """Run all trajectories in turns until each has `n_snapshots`; what `folder` already holds is kept.

    Parameters
    ----------
    trajectories : list of Trajectory
    n_snapshots : int
        Snapshots wanted of each trajectory.
    folder : path
        One `NAME.extxyz` for every trajectory; positions in Å, momenta in ASE's units.
    method : XTB or AnyCalculator (methods.py)
        A calculator for every segment, because a warm start would make the result depend on interruptions, and the
        labels of a snapshot.
    jobs : int
        Processes; the main one computes if it is 1.
    progress : callable (done, total), optional

    Returns
    -------
    list of path
        The files of the trajectories, in order.

    Raises
    ------
    DataError
        A folder of trajectories that were made with other settings, or a calculator that fails; snapshots that are
        complete stay.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    files = [folder / f"{t.name}.extxyz" for t in trajectories]
    _check_settings(folder, files, dynamics, method)
    counts, texts = zip(*map(_last_snapshot, files), strict=True)
    texts = list(texts)
    for file, trajectory, text in zip(files, trajectories, texts, strict=True):
        _check_structure(file, trajectory, text)
    waiting = [(count, index) for index, count in enumerate(counts) if count < n_snapshots]
    heapq.heapify(waiting)
    done = sum(min(c, n_snapshots) for c in counts)
    total = n_snapshots * len(files)
    running = {}
    with _executor(jobs, method) as pool:
        while waiting or running:
            while waiting and len(running) < jobs:
                k, index = heapq.heappop(waiting)  # the trajectory that is behind the others
                running[pool.submit(_advance, trajectories[index], k, texts[index], dynamics, method)] = k, index
            for future in concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done:
                k, index = running.pop(future)
                texts[index] = future.result()
                _append(files[index], texts[index])
                done += 1
                if k + 1 < n_snapshots:
                    heapq.heappush(waiting, (k + 1, index))
                if progress:
                    progress(done, total)
    return files


def _check_settings(folder, files, dynamics, method):
    """Write what the trajectories are made with, or compare; other settings would mix two sets into one."""
    path = folder / SETTINGS
    settings = {"method": method.name, **dataclasses.asdict(dynamics)}
    if not path.exists() and not any(file.exists() for file in files):
        write_text(path, to_json(settings, indent=1))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove {folder} to start over") from None
    if found != settings:
        other = [name for name in settings if not isinstance(found, dict) or found.get(name) != settings[name]]
        raise DataError(
            f"{folder}: its trajectories were made with another {' and '.join(other)}; "
            "give the same settings to go on, or another output"
        )


def _check_structure(file, trajectory, text):
    """The last snapshot must belong to the trajectory: elements, and the energy that it is measured from."""
    if not text:
        return
    atoms = next(read_xyz(io.StringIO(text), 0))
    reference = atoms.get_potential_energy() - atoms.info["deformation_energy"]
    same = np.array_equal(atoms.numbers, trajectory.start.numbers)
    if not same or abs(reference - trajectory.reference_energy) > SAME_ENERGY:
        raise DataError(f"{file}: holds snapshots of another structure; give the same settings or another output")


class _Inline(concurrent.futures.Executor):
    """An executor for one job: this process."""

    def submit(self, function, /, *args):
        future = concurrent.futures.Future()
        future.set_result(function(*args))
        return future


@contextlib.contextmanager
def _executor(jobs, method):
    """Processes that compute on one thread each: sums on several depend on their number."""
    if jobs == 1:
        with single_threaded(method):
            yield _Inline()
        return
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, spawn, _start_worker, (method,)) as pool:
        yield pool


def single_threaded(method: Method) -> contextlib.AbstractContextManager:
    """Limit the numerical libraries to one thread, in a `with` statement or for good."""
    method.calculator()  # loads the library whose threads are limited
    return threadpoolctl.threadpool_limits(limits=1)


def _start_worker(method):
    single_threaded(method)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the whole group; the parent reports it
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent():
    """A worker waits for tasks for ever when its parent is killed: the queue's other end is its own too."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _random(trajectory, segment, dynamics):
    return np.random.default_rng([dynamics.seed, zlib.crc32(trajectory.name.encode()), segment])


def _advance(trajectory, k, text, dynamics, method):
    """Snapshot k of a trajectory as text, from snapshot k - 1 as text ("" stands for the start)."""
    atoms = next(read_xyz(io.StringIO(text), 0)) if text else _first_state(trajectory, dynamics)
    atoms.set_masses(trajectory.start.get_masses())  # leaves the momenta as they are
    try:
        atoms.calc = method.calculator()
        langevin = Langevin(
            atoms,
            timestep=dynamics.timestep * units.fs,
            temperature_K=trajectory.temperature,
            friction=dynamics.friction / units.fs,
            rng=_random(trajectory, k + 1, dynamics),
            fixcm=False,  # exact NVT sampling; the drift of the centre changes no label
        )
        langevin.run(dynamics.warmup if k == 0 else dynamics.interval)
        return _snapshot_text(atoms, trajectory, k, method)
    except Exception as error:  # a calculator raises anything
        raise failure(f"{trajectory.name}, snapshot {k}", error) from None


def _first_state(trajectory, dynamics):
    """The start with random momenta of the Maxwell-Boltzmann distribution: each component has variance m k T."""
    atoms = trajectory.start.copy()
    spread = np.sqrt(atoms.get_masses() * units.kB * trajectory.temperature)
    atoms.set_momenta(_random(trajectory, 0, dynamics).standard_normal((len(atoms), 3)) * spread[:, None])
    return atoms


def _snapshot_text(atoms, trajectory, k, method):
    """Snapshot k with its labels as a frame of extended XYZ."""
    snapshot = ase.Atoms(atoms.numbers, atoms.positions, momenta=atoms.get_momenta(), cell=atoms.cell, pbc=atoms.pbc)
    labels, arrays = method.labels(snapshot)
    snapshot.info = {"id": f"{trajectory.name}-{k:04d}", "temperature": trajectory.temperature, **labels}
    snapshot.info["deformation_energy"] = labels["energy"] - trajectory.reference_energy
    for name, values in arrays.items():
        snapshot.set_array(name, values)
    frame = io.StringIO()
    write_xyz(frame, [snapshot])
    return frame.getvalue()


def _append(file, text):
    with open(file, "a", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _last_snapshot(file):
    """Number of complete snapshots in a file and the text of the last one; a frame that was cut off is removed.

    Raises DataError where something else stands between the snapshots.
    """
    if not file.exists():
        return 0, ""
    with open(file, "rb+") as stream:
        count = 0
        end = 0
        last = []
        while line := stream.readline():
            if not line.strip().isdigit():
                raise DataError(
                    f"{file}: the text after snapshot {count} is no number of atoms, {line[:20]!r}; repair the file, "
                    "or remove it to begin again"
                )
            rows = [stream.readline() for _ in range(int(line) + 1)]
            if not rows[-1].endswith(b"\n"):
                break
            count += 1
            end = stream.tell()
            last = [line, *rows]
        stream.truncate(end)
    return count, b"".join(last).decode("utf-8")
