"""Structures as the databases of OPTIMADE (optimade.org) answer: JSON of entries, or of an answer that holds them."""

import json
from collections.abc import Iterator

import ase
import numpy as np

from refattn.common.strict_json import with_keys_once
from refattn.data.sources.extxyz import ISOTOPES, Frame, check_occupancy, labels_of_json
from refattn.errors import DataError, in_one_line

SIGN = b'"cartesian_site_positions"'
UNKNOWN = ("X", "vacancy")  # what a species may be but an element


def read_optimade(text: str) -> Iterator[Frame | DataError]:
    """The Frame of every entry; labels are the numbers that the database adds, named without the leading underscore.

    Raises DataError where the text is no such answer.
    """
    try:
        record = json.loads(text, object_pairs_hook=with_keys_once)
    except ValueError as error:
        raise DataError(f"is no JSON ({in_one_line(error)}); fetch it again") from None
    entries = record.get("data") if isinstance(record, dict) and "data" in record else record
    if isinstance(record, dict) and isinstance(record.get("meta"), dict) and record["meta"].get("more_data_available"):
        raise DataError(
            "is one page of an answer that has more (meta.more_data_available); fetch the others by links.next, put "
            "all entries into one list `data`, and leave `meta` out"
        )
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        try:
            yield frame_of_entry(entry)
        except DataError as error:
            yield error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            yield DataError(f"the entry {number} cannot be read ({in_one_line(error)}); repair it")


def frame_of_entry(entry: dict) -> Frame:
    """The Frame of an entry of the type `structures`. Raises DataError for a site that is shared or not full."""
    about = entry.get("attributes", entry)
    species = {kind["name"]: kind for kind in about.get("species") or ()}
    symbols = []
    for site, name in enumerate(about["species_at_sites"]):
        kind = species.get(name, {"chemical_symbols": [name], "concentration": [1]})
        parts = dict(zip(kind["chemical_symbols"], kind["concentration"], strict=True))
        check_occupancy({site: parts})
        (symbol,) = parts
        if symbol in UNKNOWN or kind.get("attached"):
            raise DataError(f"the site {site} is no single atom of a known element; complete the structure")
        symbols.append(ISOTOPES.get(symbol, symbol))
    cell = np.array([row if None not in row else [0, 0, 0] for row in about.get("lattice_vectors") or np.zeros((3, 3))])
    pbc = [bool(number) for number in about.get("dimension_types") or cell.any(axis=1)]
    atoms = ase.Atoms(symbols, np.array(about["cartesian_site_positions"], float), cell=cell.astype(float), pbc=pbc)
    own = {name.lstrip("_"): value for name, value in about.items() if name.startswith("_")}
    labels, texts = labels_of_json(own)
    return Frame(str(entry.get("id") or about.get("id") or ""), labels, atoms, {}, texts)
