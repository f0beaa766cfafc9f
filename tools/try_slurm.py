"""The job scripts of docs/scaling.md with a real SLURM on this machine: python tools/try_slurm.py [--keep FOLDER]

Needs root, Debian's packages slurm-wlm and munge, and MPICH in this Python's environment (the extra `test`). A daemon
of each kind is started on the loopback interface with a configuration of its own, and ended again. Three are tried:

- a training on two ranks that is told to end before its time is over, is queued again until it is done, and has the
  bits of one that nothing disturbed;
- an array of three jobs that prepares a set in parts, a job behind it that joins them, and the set that one process
  makes;
- an array that trains the five folds of a split, of which every job does its own.
"""

import argparse
import contextlib
import hashlib
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ase.io
import h5py
from try_ranks import config_text, shaken_molecules

CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
JobRequeue=1
KillWait=10
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=60 State=UP
"""
TRAIN = """#!/bin/bash
#SBATCH --ntasks=2 --cpus-per-task=1 --time=00:02:00
#SBATCH --signal=TERM@60 --requeue --open-mode=append
echo "start $SLURM_RESTART_COUNT"
srun --mpi=pmi2 {refattn} train config.toml --out runs/x --resume --threads 1 || scontrol requeue $SLURM_JOB_ID
"""
PREPARE = """#!/bin/bash
#SBATCH --array=1-3 --ntasks=1 --time=10
{refattn} prepare set parts/$SLURM_ARRAY_TASK_ID.h5 --part $SLURM_ARRAY_TASK_ID/3
"""
JOIN = """#!/bin/bash
#SBATCH --ntasks=1 --time=10
{refattn} join parts/*.h5 joined.h5
"""
FOLDS = """#!/bin/bash
#SBATCH --array=0-4 --ntasks=1 --time=10
{refattn} train config.toml --epochs 2 --folds 5 --fold $SLURM_ARRAY_TASK_ID --out runs/cv --resume --threads 1
"""
SECONDS = 1800
REFATTN = Path(sys.executable).with_name("refattn")


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, **options).stdout


@contextlib.contextmanager
def slurm(folder):
    """A SLURM of this machine alone, whose commands find it by SLURM_CONF."""
    daemons = []
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    path = folder / "slurm.conf"
    path.write_text(CONFIGURATION.format(host=host, folder=folder, cpus=os.cpu_count()))
    os.environ["SLURM_CONF"] = str(path)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = [f"--{option}={folder}/munge.{name}" for option, name in files.items()]
    try:
        for command in (["munged", "-F", "-f", *munge], ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            daemons.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            time.sleep(3)
        until = time.monotonic() + 60
        while "idle" not in run("sinfo", "-h", "-o", "%t"):
            if time.monotonic() > until:
                raise TimeoutError(f"SLURM does not start: {(folder / 'slurmctld.log').read_text()[-2000:]}")
            time.sleep(1)
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(60)


def submit(folder, name, script, *options):
    """The number of a job."""
    path = folder / f"{name}.sh"
    path.write_text(script.format(refattn=REFATTN))
    return run("sbatch", "--parsable", "-o", f"{name}-%a.log", *options, path, cwd=folder).strip()


def wait(job):
    """Until a job, and all of its array, has ended; the states that it had."""
    seen = []
    until = time.monotonic() + SECONDS
    while states := run("squeue", "-h", "-o", "%T", "-j", job).split():
        seen += [state for state in states if not seen or state != seen[-1]]
        if time.monotonic() > until:
            raise TimeoutError(f"job {job} does not end: {seen}")
        time.sleep(2)
    return seen


def digest(path, groups):
    """Of all arrays of some groups of an HDF5 file."""
    found = hashlib.sha256()

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            values = item[()]
            found.update(name.encode() + (values.tobytes() if values.dtype.kind != "O" else repr(values).encode()))

    with h5py.File(path) as file:
        for group in groups:
            file[group].visititems(add)
    return found.hexdigest()[:16]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="a new folder that stays")
    parser.add_argument("--epochs", type=int, default=1600, help="of the training: several minutes")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="refattn-slurm-"))
    folder.mkdir(exist_ok=True)
    folder = folder.resolve()
    library = next(str(file.locate()) for file in importlib.metadata.files("mpich") if file.name == "libmpi.so.12")
    os.environ["MPI4PY_LIBMPI"] = library
    (folder / "set").mkdir()
    (folder / "parts").mkdir()
    for atoms in shaken_molecules(120):
        ase.io.write(folder / "set" / f"{atoms.info['id']}.extxyz", atoms)
    run(REFATTN, "prepare", "set", "all.h5", cwd=folder)
    (folder / "config.toml").write_text(config_text("all.h5", arguments.epochs))
    run(REFATTN, "train", "config.toml", "--out", "runs/alone", "--threads", "1", cwd=folder)
    with slurm(folder):
        print(run("sinfo", "--version").strip(), flush=True)
        states = wait(submit(folder, "train", TRAIN))
        log = next(folder.glob("train-*.log")).read_text()
        same = [digest(folder / "runs" / name / "last.h5", ["parameters"]) for name in ("alone", "x")]
        print(
            f"training: {' '.join(states)}; {log.count('start ')} starts; {same[0]} alone, {same[1]} in SLURM",
            flush=True,
        )
        array = submit(folder, "prepare", PREPARE)
        wait(submit(folder, "join", JOIN, f"--dependency=afterok:{array}"))
        same = [digest(folder / name, ["structures", "graph", "labels"]) for name in ("all.h5", "joined.h5")]
        print(f"prepare: {same[0]} by one process, {same[1]} joined from an array of three", flush=True)
        wait(submit(folder, "folds", FOLDS))
        done = sorted(path.parent.name for path in (folder / "runs" / "cv").glob("*/metrics.json"))
        print(f"folds done by an array of five: {' '.join(done)}")
    if not arguments.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
