"""refattn explain --validate: whether the scores are to be believed."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import ase
import numpy as np

from refattn.cli.options import LeftOut, StatusLine, claim_outputs, echo
from refattn.common.files import make_directory
from refattn.common.strict_json import to_json
from refattn.common.text import counted
from refattn.data.builtin import data_of_run, open_data
from refattn.data.fingerprint import graph_digests
from refattn.data.sources.files import Skip, open_files, read_structures
from refattn.data.splits import resolve_split
from refattn.errors import DataError, StructureError
from refattn.network.checkpoint import check_data
from refattn.prediction.ensemble import members_of
from refattn.prediction.predictor import Model, load
from refattn.prediction.targets import target_number
from refattn.report.errors_of_run import errors_of_run
from refattn.report.sentences import sentences
from refattn.report.validation import FILES, MARKS, write_report
from refattn.validation.study import Settings, validate


def validate_scores(
    run: str,
    files: tuple[str, ...],
    out: str,
    sample: int,
    settings: Settings,
    skip_bad: bool,
    device: str,
    as_json: bool,
    overwrite: bool = False,
    reading: dict | None = None,
) -> None:
    """Validate the scores of a run or an ensemble, print the sentences or the JSON, and write the report into `out`.

    Parameters
    ----------
    sample : int      structures at most
    reading : dict    how `files` are read: recursive, id_from, min_distance
    the others        as in cli/explain.py

    Raises OutputError, and what study.validate and loading raise.
    """
    reading = dict(reading or {})
    min_distance = reading.pop("min_distance", None)
    models = [load(member, device, min_distance) for member in members_of(run)]
    status = StatusLine()
    left_out = LeftOut(status)
    targets = models[0].targets if settings.target is None else (settings.target,)
    skip = left_out if skip_bad else None
    structures, sources = read_held_out(run, models[0], targets, files, status, skip, reading)
    claim_outputs({Path(out) / name: mark for name, mark in MARKS.items()}, run, (), sources, overwrite)
    make_directory(out)
    structures = sample_of(structures, sample, settings.seed)
    record = validate(models, structures, settings, status.update, skip)
    record |= {"run": str(run), "left_out": left_out.ids}
    for target, own in (record.get("targets") or {record["target"]: record}).items():
        own["errors_of_run"] = errors_of_run(run, [target])
    write_report(out, record, shlex.join(["refattn", *sys.argv[1:]]))
    if as_json:
        echo(to_json(record))
    else:
        for sentence in sentences(record):
            verdict = f"{sentence.verdict}: " if sentence.verdict else ""
            echo(f"{sentence.topic}\t{verdict}{sentence.text}".replace("−", "-"))  # as all commands print it
    structures, runs = counted(record["n_structures"], "structure"), counted(record["n_runs"], "run")
    status.line(f"{structures}, {runs}; open {Path(out) / FILES[1]}")


def read_held_out(
    run: str,
    model: Model,
    targets: Sequence[str],
    files: tuple[str, ...],
    status: StatusLine,
    skip: Skip | None,
    reading: dict | None = None,
) -> tuple[list[ase.Atoms], list[Path | str]]:
    """Structures that the model was not trained on, with a dict `label` of all targets in info, and their files."""
    for target in targets:
        target_number(model, target)  # refuses a name that the model does not know
    split = model.checkpoint.split
    if not files:
        if not split.test:
            raise DataError("the run has no test set of its own; name FILES to validate with")
        path = data_of_run(model.config.data.path, run)
        dataset = open_data(path, model.config.graph, with_positions=True)
        check_data(model.checkpoint, dataset)
        structures = [dataset.atoms(row) for row in resolve_split(split, dataset)[2]]
        for atoms in structures:
            atoms.info["label"] = {target: atoms.info.get(target) for target in targets}
        return structures, [path]
    sources = open_files(files, **(reading or {}))
    everything = list(read_structures(sources, targets, skip))
    structures = [atoms for atoms in everything if not learned(model, atoms)]
    if len(structures) < len(everything):
        n_learned = len(everything) - len(structures)
        status.line(f"left out {counted(n_learned, 'structure')} of the training and validation set")
    return structures, [file for source in sources for file in source.files]


def learned(model: Model, atoms: ase.Atoms) -> bool:
    """Whether a structure is one of the training or validation set: by its graph, whatever its id; by its id where the
    run keeps no digests."""
    split, fingerprint = model.checkpoint.split, model.checkpoint.fingerprint
    n_learned = len(split.train) + len(split.valid)
    id = atoms.info["id"]
    if fingerprint is not None:
        try:
            digests = graph_digests(model.graph(id, atoms), np.zeros(1, dtype=np.int64))
        except (StructureError, DataError):  # the validation refuses it, or leaves it out, and says why
            return False
        return digests[0] in fingerprint.graphs[:n_learned]
    return id in split.train or id in split.valid


def sample_of(structures: list[ase.Atoms], n: int, seed: int) -> list[ase.Atoms]:
    """At most n of the structures, drawn at random, in their order."""
    if len(structures) <= n:
        return structures
    rows = np.random.default_rng([seed, len(structures)]).choice(len(structures), n, replace=False)
    return [structures[row] for row in np.sort(rows)]
