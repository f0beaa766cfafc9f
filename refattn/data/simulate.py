"""Molecular dynamics that makes a labelled set: ASE's Langevin dynamics, a calculator, snapshots in extended XYZ.

A trajectory is a chain of segments. Each segment starts from the snapshot before it *as written to the
file*, with a fresh calculator and random numbers keyed by (seed, trajectory, segment). So the file is the
checkpoint: a run that was killed goes on from its last complete snapshot, and ends with the same bytes.
"""

import dataclasses
import gzip
import io
import itertools
import os
import zlib
from pathlib import Path

import ase.io
import numpy as np
from ase import units
from ase.io.extxyz import read_xyz, write_xyz
from ase.md.langevin import Langevin
from ase.optimize import BFGS

from refattn.atomic import replacing
from refattn.errors import DataError


@dataclasses.dataclass(frozen=True)
class Dynamics:
    """Settings of the dynamics; every trajectory of a set shares them."""

    timestep: float = 2.0  # fs; a C-C stretch has a period of about 20 fs
    friction: float = 0.02  # 1/fs; decorrelates neighbouring snapshots within about 50 fs
    warmup: int = 60  # steps before the first snapshot
    interval: int = 10  # steps between snapshots
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """One trajectory: a name, the relaxed structure that it starts from (energy in `info`), a temperature in K."""

    name: str
    start: ase.Atoms
    temperature: float


def relax(atoms, calculator, fmax=0.01):
    """Relax a copy of `atoms` until no force exceeds `fmax` (eV/Å); its energy in eV is left in `info`."""
    atoms = atoms.copy()
    atoms.calc = calculator
    if not BFGS(atoms, logfile=None).run(fmax=fmax, steps=500):
        raise DataError(
            f"{atoms.info.get('id', atoms.symbols)}: not relaxed after 500 steps; start nearer to a minimum"
        )
    energy = atoms.get_potential_energy()
    atoms.calc = None
    atoms.info["energy"] = float(energy)
    return atoms


def generate(trajectories, n_snapshots, folder, dynamics, make_calculator, make_labels, progress=None):
    """Run all trajectories in turns until each has `n_snapshots`; what `folder` already holds is kept.

    Parameters
    ----------
    trajectories : list of Trajectory
    n_snapshots : int
        Snapshots wanted of each trajectory.
    folder : path
        One `NAME.extxyz` for every trajectory; positions in Å, momenta in ASE's units.
    dynamics : Dynamics
    make_calculator : callable () -> ase calculator
        Called once a segment: a warm start would make the result depend on interruptions.
    make_labels : callable (atoms) -> (dict of float, dict of arrays)
        Labels and per-atom arrays of a snapshot.
    progress : callable (done, total), optional

    Returns
    -------
    list of path
        The files of the trajectories, in order.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{t.name}.extxyz" for t in trajectories]
    last = [_last_snapshot(file) for file in files]
    done, total = sum(count for count, _ in last), n_snapshots * len(trajectories)
    for k in range(n_snapshots):
        for index, trajectory in enumerate(trajectories):
            count, atoms = last[index]
            if count > k:
                continue
            if atoms is None:
                atoms = _first_state(trajectory, dynamics)
            atoms = _segment(atoms, trajectory, k, dynamics, make_calculator())
            last[index] = k + 1, _append_snapshot(files[index], atoms, trajectory, k, make_labels)
            done += 1
            if progress:
                progress(done, total)
    return files


def _random(trajectory, segment, dynamics):
    return np.random.default_rng([dynamics.seed, zlib.crc32(trajectory.name.encode()), segment])


def _first_state(trajectory, dynamics):
    """The start with random momenta of the Maxwell-Boltzmann distribution: each component has variance m k T."""
    atoms = trajectory.start.copy()
    spread = np.sqrt(atoms.get_masses() * units.kB * trajectory.temperature)
    atoms.set_momenta(_random(trajectory, 0, dynamics).standard_normal((len(atoms), 3)) * spread[:, None])
    return atoms


def _segment(atoms, trajectory, k, dynamics, calculator):
    """Langevin dynamics from snapshot k - 1 to snapshot k."""
    atoms = atoms.copy()
    atoms.calc = calculator
    langevin = Langevin(
        atoms,
        timestep=dynamics.timestep * units.fs,
        temperature_K=trajectory.temperature,
        friction=dynamics.friction / units.fs,
        rng=_random(trajectory, k + 1, dynamics),
        fixcm=False,  # exact NVT sampling; the drift of the centre changes no label
    )
    langevin.run(dynamics.warmup if k == 0 else dynamics.interval)
    atoms.calc = None
    return atoms


def _append_snapshot(file, atoms, trajectory, k, make_labels):
    """Write snapshot k with its labels; return it as a reader of the file sees it."""
    snapshot = ase.Atoms(atoms.numbers, atoms.positions, momenta=atoms.get_momenta(), cell=atoms.cell, pbc=atoms.pbc)
    labels, arrays = make_labels(snapshot)
    snapshot.info = {"id": f"{trajectory.name}-{k:04d}", "temperature": trajectory.temperature, **labels}
    snapshot.info["deformation_energy"] = labels["energy"] - trajectory.start.info["energy"]
    for name, values in arrays.items():
        snapshot.set_array(name, values)
    with open(file, "a", encoding="utf-8", newline="\n") as stream:
        write_xyz(stream, [snapshot])
        stream.flush()
        os.fsync(stream.fileno())
    return _last_snapshot(file)[1]


def _last_snapshot(file):
    """Number of complete snapshots in a file and the last one; a frame that was cut off is removed."""
    if not file.exists():
        return 0, None
    with open(file, "rb+") as stream:
        count, start, end = 0, 0, 0
        while line := stream.readline():
            rows = [stream.readline() for _ in range(int(line) + 1)] if line.strip().isdigit() else [b""]
            if not rows[-1].endswith(b"\n"):
                break
            count, start, end = count + 1, end, stream.tell()
        stream.truncate(end)
    if count == 0:
        return 0, None
    with open(file, encoding="utf-8", newline="\n") as stream:
        stream.seek(start)
        return count, next(read_xyz(stream, 0))


DECIMALS = {"positions": 5, "forces": 4, "homo_population": 5, "lumo_population": 5}  # Å, eV/Å, 1, 1


def merge_trajectories(files, out, n_snapshots):
    """Put the first `n_snapshots` of every trajectory into one extended XYZ file, gzipped if its name ends so.

    Momenta are left out and arrays rounded to DECIMALS, below what the labels can tell. The same trajectories give
    the same bytes. Returns the number of snapshots; raises OutputError when `out` cannot be written.
    """
    count, packed = 0, str(out).endswith(".gz")
    with replacing(out) as part, open(part, "wb") as raw:
        target = gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) if packed else raw
        with io.TextIOWrapper(target, encoding="utf-8", newline="\n") as stream:
            for file in files:
                for atoms in itertools.islice(ase.io.iread(file, format="extxyz"), n_snapshots):
                    write_xyz(stream, [_rounded(atoms)], write_results=False)
                    count += 1
    return count


def _rounded(atoms):
    """A snapshot as it is published: results as labels and arrays, without momenta."""
    snapshot = ase.Atoms(
        atoms.numbers, np.round(atoms.positions, DECIMALS["positions"]), cell=atoms.cell, pbc=atoms.pbc
    )
    results = atoms.calc.results if atoms.calc else {}
    snapshot.info = {**atoms.info, **{name: float(value) for name, value in results.items() if np.ndim(value) == 0}}
    per_site = {**atoms.arrays, **{name: value for name, value in results.items() if np.ndim(value) > 0}}
    for name, decimals in DECIMALS.items():
        if name in per_site and name != "positions":
            snapshot.set_array(name, np.round(per_site[name], decimals))
    return snapshot
