"""Runs refattn commands for test_resume.py, each in a process of its own that is forked from one that is warm.

A line of stdin is the command's arguments as JSON; the answer is the number of the process. Another line is answered
by its exit status (minus the signal, if it was killed), when it has ended. What it says goes to the file sys.argv[1].
"""

import json
import os
import sys

from ase.build import bulk, molecule

from refattn.cli.main import cli
from refattn.cli.prepare import prepare as _  # noqa: F401  imported here, once
from refattn.data import prepare
from refattn.structures.batch import GraphBatch

prepare.BLOCK_STRUCTURES = 8  # as in test_resume.py
for atoms in (molecule("H2O"), bulk("Cu")):
    GraphBatch.from_atoms(atoms)  # loads the kernels
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            cli(json.loads(line), standalone_mode=False)
        except SystemExit as end:
            os._exit(end.code)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()  # until then its number is not given to another process, which would be killed instead
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
