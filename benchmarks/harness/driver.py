"""Starts the workers of the peers and lets them take turns, so that a slow minute of the machine falls on all."""

import hashlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time

from refattn.benchmarks.measures import faster, operations, rates, summary
from refattn.benchmarks.peers import PEERS, peers_for
from refattn.common.files import private_folder
from refattn.config import ModelConfig

START_LIMIT = 420.0  # s; torch.compile takes its time
TURN_LIMIT = 300.0  # s for one order


class Stopped(Exception):
    """A worker that has no answer: the message says why."""


class Worker:
    """A peer in its process.

    Parameters
    ----------
    order : dict             see worker.py
    python : str, optional   the interpreter that runs it; by default this one

    Raises Stopped when the peer cannot be had, and says why.
    """

    def __init__(self, order, python=None):
        self.order, self.seconds = order, {}
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        command = [python or sys.executable, "-m", "refattn.benchmarks.worker", json.dumps(order)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors, "text": True}
        environment = {**environment_for(python), "PYTHONSAFEPATH": "1"}  # no module of the working folder is loaded
        self.process = subprocess.Popen(command, env=environment, **pipes)
        self.lines = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.ready = self._answer(START_LIMIT)
        if "problem" in self.ready:
            self.close()
            raise Stopped(self.ready["problem"])
        self.forms = self.ready["forms"]

    def ask(self, wanted, limit=TURN_LIMIT):
        """Give an order and wait for the answer, a dict. Raises Stopped."""
        try:
            self.process.stdin.write(json.dumps(wanted) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Stopped(f"ended: {self._last_words()}") from None
        return self._answer(limit)

    def measure(self, form, first, times, keep=True):
        """Let it run `times` batches from number `first` on; their times are kept in `seconds` by form."""
        found = self.ask({"what": form, "first": first, "times": times})["seconds"]
        if keep:
            self.seconds.setdefault(form, []).extend(found)
        return found

    def close(self):
        """End the process and wait for it."""
        if self.process.poll() is None:
            try:
                self.process.stdin.close()
                self.process.wait(timeout=10)
            except (subprocess.TimeoutExpired, BrokenPipeError):
                self.process.kill()
                self.process.wait()
        self.errors.close()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def _answer(self, limit):
        try:
            line = self.lines.get(timeout=limit)
        except queue.Empty:
            self.process.kill()
            raise Stopped(f"gave no answer within {limit:.0f} s") from None
        if not line:
            self.process.wait()
            reason = f"ended: {self._last_words()}"
            self.errors.close()
            raise Stopped(reason)
        return json.loads(line)

    def _last_words(self):
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors if line.strip()]
        return lines[-1][:200] if lines else f"exit status {self.process.poll()}"


def environment_for(python):
    """The environment of a process of another interpreter: with compiled kernels of its own, which are pickles.

    Two versions of Numba that share a folder each throw away what the other has compiled.
    """
    if python in (None, sys.executable) or "NUMBA_CACHE_DIR" in os.environ:
        return {**os.environ}
    name = hashlib.sha256(str(python).encode()).hexdigest()[:12]
    return {**os.environ, "NUMBA_CACHE_DIR": str(private_folder(f"numba-{name}"))}


def interpreters(words):
    """{peer or its first word: interpreter} of words such as "tensorflow=PATH". Raises ValueError, in a sentence."""
    found = {}
    for word in words:
        name, equals, path = word.partition("=")
        known = name in PEERS or any(peer.startswith(f"{name}-") for peer in PEERS)
        if not (equals and path and known):
            raise ValueError(f"{word!r} names no interpreter of a peer; write PEER=PATH, such as tensorflow=PATH")
        found[name] = path
    return found


def python_of(peer, pythons):
    """The interpreter of a peer: its own, that of its family (the word before the first dash), or this one."""
    return pythons.get(peer) or pythons.get(peer.partition("-")[0]) or sys.executable


def compare(order, names, threads, pythons, note, rounds=6, turn=3, limit=float("inf"), speed=None):
    """Measure one variant of the network in turns.

    Parameters
    ----------
    order : dict              for the workers, without peer and threads
    names : list of str       peers; refattn is always among them
    threads : list of int
    pythons : dict            of `interpreters`
    note : callable (str)     hears what happens
    rounds, turn, limit       see take_turns
    speed : dict, optional    rates by number of threads, to be improved upon

    Returns
    -------
    rows : list of dict       see row_view
    missing : dict            {peer, or peer and threads: why it was not measured}
    speed : dict              {threads: rates}

    Raises Stopped when a worker ends in the middle of the measurement.
    """
    workers, missing, speed = [], {}, dict(speed or {})
    try:
        for name in peers_for(order["variant"], names):
            for n_threads in threads:
                worker, problem = start({**order, "peer": name, "threads": n_threads}, pythons, note)
                if worker:
                    workers.append(worker)
                elif problem.startswith("not installed"):
                    missing[name] = problem
                    break
                else:
                    missing[f"{order['variant']} {name}, {n_threads} threads"] = problem
        speed = improved(speed, threads)
        take_turns(workers, rounds, turn, limit)
        speed = improved(speed, threads)
        return [row_view(worker, speed) for worker in workers], missing, speed
    finally:
        for worker in workers:
            worker.close()


def improved(speed, threads):
    """The rates, measured once more: the better of the two count."""
    found = {n: rates(n) for n in threads}
    return {**speed, **{n: faster(now, speed.get(n, now)) for n, now in found.items()}}


def start(order, pythons, note):
    """The Worker of an order, warmed up on every batch and form, or None, and why; `note` hears of it either way.

    Warming up goes on after every shape was met once: some frameworks compile a shape when they meet it again.
    """
    name, n_threads, began = order["peer"], order["threads"], time.perf_counter()
    label = f"{order['variant']} {name}, {n_threads} thread{'s' * (n_threads > 1)}"
    worker = None
    try:
        worker = Worker(order, python_of(name, pythons))
        for form in {form for forms in worker.forms.values() for form in forms}:
            worker.measure(form, 0, order["n_batches"], keep=False)
            worker.measure(form, 0, 2, keep=False)
    except (Stopped, OSError) as error:
        if worker:
            worker.close()
        note(f"{label}: {error}")
        return None, str(error)
    note(f"{label}: ready in {time.perf_counter() - began:.0f} s")
    return worker, None


def take_turns(workers, rounds, turn, limit=float("inf")):
    """`rounds` times every form of every worker, `turn` batches each; ends early, after a whole round, at `limit` s."""
    end = time.perf_counter() + limit
    for number in range(rounds):
        for worker in workers:
            for form in sorted({form for forms in worker.forms.values() for form in forms}):
                worker.measure(form, number * turn, turn)
        if time.perf_counter() > end:
            return


def row_view(worker, rates):
    """What was measured of a worker, as a dict: its fastest form of each kind, all forms, fractions of sgemm."""
    order, sizes = worker.order, worker.ready["sizes"]
    n_structures = sizes[0][0]
    counts = [operations(ModelConfig(**worker.ready["model"]), *size) for size in sizes]
    forms = {form: summary(seconds, n_structures) for form, seconds in worker.seconds.items()}
    row = {"variant": order["variant"], "peer": order["peer"], "threads": order["threads"], "forms": forms}
    row |= {key: worker.ready[key] for key in ("largest_difference", "version")}
    for kind, names in worker.forms.items():
        fastest = min(names, key=lambda form: forms[form]["median"])
        work = sum(count["forward" if kind == "predict" else "step"] for count in counts) / len(counts)
        rate = work / forms[fastest]["median"] / 1e9
        fraction = rate / rates[order["threads"]]["sgemm_gflops"]
        row[kind] = {"form": fastest, **forms[fastest], "gflops": rate, "fraction_of_sgemm": fraction}
    return row
