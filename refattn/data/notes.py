"""What somebody should know of a data set before it is trained on: nothing wrong, but seldom what is wanted."""

from collections.abc import Iterator

import numpy as np
from ase.data import chemical_symbols

from refattn.common.metrics import ROUNDING
from refattn.common.text import counted
from refattn.config import Config, DataConfig
from refattn.data.splits import labels_of_targets
from refattn.data.store import Dataset
from refattn.structures.batch import WITHOUT_BONDS, far_apart

LOOKED_AT = 1000  # structures whose distances are looked at: the unit of a source is that of all


def notes_on(config: Config, dataset: Dataset, rows: tuple[np.ndarray, ...]) -> list[str]:
    """Sentences on the labels and elements of the structures `rows` to train on, to validate on and to test on."""
    of_data = [*_notes_on_labels(config, dataset, rows), *_notes_on_elements(config, dataset, rows)]
    return [*_notes_on_split(config.data), *_notes_on_distances(dataset, rows[0][:LOOKED_AT]), *of_data]


def _notes_on_distances(dataset: Dataset, rows: np.ndarray) -> Iterator[str]:
    """Of distances that may have another unit than Å."""
    apart, said = far_apart(dataset.graphs.take(rows))
    if len(apart):
        n = f"{len(apart)} of the first {counted(len(rows), 'structure')} to train on"
        yield f"{n} have {WITHOUT_BONDS.format(f'{dataset.id[rows[apart[0]]]}, {said}')}"


def _notes_on_split(data: DataConfig) -> Iterator[str]:
    """Of sizes that the way to split leaves without effect."""
    if data.n_test and data.n_folds:
        yield f"data.n_test = {data.n_test} has no effect: fold {data.fold} of {data.n_folds} is the test part"
    if data.n_test and not data.test_part:
        yield f"data.n_test = {data.n_test} has no effect: data.test_part is false"
    if data.n_test and data.split_by == "elements" and data.split_group:
        yield f"data.n_test = {data.n_test} has no effect: all structures with {data.split_group} are the test part"
    if data.n_valid and data.n_folds and data.valid_by == "group":
        yield f"data.n_valid = {data.n_valid} has no effect: the fold after the test part is the validation part"


def _notes_on_labels(config: Config, dataset: Dataset, rows: tuple[np.ndarray, ...]) -> Iterator[str]:
    readout = config.model.readout
    for target, column in zip(config.data.targets, labels_of_targets(dataset, config.data.targets).T, strict=True):
        kind = dataset.label_attrs[target].get("kind")
        if kind == "extensive" and readout != "sum":
            yield (
                f"{target} is extensive, it grows with the size of a structure, and the readout {readout} does not; "
                "for a sum over the sites set model.readout=sum"
            )
        if kind == "intensive" and readout == "sum":
            yield (
                f"{target} is intensive, it does not grow with the size of a structure, and the readout sum does; "
                "for a mean over the sites set model.readout=intensive"
            )
        known = column[rows[0]][~np.isnan(column[rows[0]])]
        if len(known) > 1 and np.ptp(known) <= ROUNDING * np.abs(known).max():
            yield f"{target} is {known[0]:.6g} in all structures to train on; there is nothing to learn from it"
        if not config.of_class and np.array_equal(np.unique(known), (0, 1)):
            yield f"{target} is 0 or 1; to predict the probability of a class set training.loss=cross_entropy"
        n_negative = int((column[np.concatenate(rows)] < 0).sum())
        if config.model.non_negative and n_negative:
            yield (
                f"{target} is negative in {n_negative} structures, and no prediction is; for negative ones set "
                "model.non_negative=false"
            )


def _notes_on_elements(config: Config, dataset: Dataset, rows: tuple[np.ndarray, ...]) -> Iterator[str]:
    """Of parts with elements that nothing is learned of; predict refuses such structures."""
    if config.model.features != "atomic":
        return
    graphs = dataset.graphs
    seen = graphs.elements(rows[0])
    for name, purpose, part in (
        ("validate", ", and they help to choose the best epoch", rows[1]),
        ("test", "", rows[2]),
    ):
        blocks = graphs.blocks(part)
        is_new = [np.logical_or.reduceat(~np.isin(block.z, seen), block.site_ptr[:-1]) for block in blocks]
        unseen = part[np.concatenate([np.zeros(0, bool), *is_new])]
        if len(unseen):
            names = ", ".join(chemical_symbols[z] for z in np.setdiff1d(graphs.elements(unseen), seen))
            yield (
                f"no structure to train on holds {names}, which {len(unseen)} of {len(part)} to {name} on do{purpose}; "
                "leave them out, or choose another split"
            )
