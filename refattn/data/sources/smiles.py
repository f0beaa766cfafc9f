"""Molecules as SMILES: a file of them (.smi), or a table (.csv) with a column of that name among labels.

RDKit (extra `smiles`) adds the hydrogen atoms and embeds the molecule in space (ETKDGv3, with a fixed seed, so that the
same SMILES is the same structure), and MMFF94 relaxes it where it knows all atoms.
"""

import csv
import io
from collections.abc import Iterator

import ase

from refattn.data.sources.extxyz import Frame, labels_and_texts
from refattn.errors import DataError, MissingExtra

SEED = 0
COLUMN = "smiles"  # in small or capital letters
IDS = ("id", "name")


def read_smiles(text: str) -> Iterator[Frame | DataError]:
    """The Frame of every line: a SMILES, and behind a blank the id, if there is one."""
    for line in text.splitlines():
        smiles, _, id = line.strip().partition("\t" if "\t" in line else " ")
        if smiles and not smiles.startswith("#"):
            yield frame_of_smiles(smiles, id.strip())


def read_smiles_table(text: str) -> Iterator[Frame | DataError]:
    """The Frame of every row of a table, or why there is none; other columns with numbers are labels.

    Raises DataError without SMILES, or where two columns have one name.
    """
    rows = csv.reader(io.StringIO(text))
    header = [name.strip() for name in next(rows, ())]
    names = {name.lower(): name for name in header}
    keys = [name.lower() if name.lower() in (COLUMN, *IDS) else name for name in header if name]
    twice = next((name for name in keys if keys.count(name) > 1), None)
    if twice:
        raise DataError(f"line 1: two columns are called {twice}; give each a name of its own")
    if COLUMN not in names:
        raise DataError(
            "has no column smiles, so it holds no structures; name it so, or give a table of labels to prepare --labels"
        )
    id_name = next((names[name] for name in IDS if name in names), None)
    for cells in filter(None, rows):
        if len(cells) == len(header) + 1 and not cells[-1].strip():
            del cells[-1]  # a comma at the end of the line
        if len(cells) != len(header):
            yield DataError(f"line {rows.line_num}: has {len(cells)} columns instead of {len(header)}; repair the line")
            continue
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        found = frame_of_smiles(row[names[COLUMN]], row.get(id_name, ""))
        if isinstance(found, Frame):
            known = {name: cell for name, cell in row.items() if name not in (names[COLUMN], id_name) and cell}
            labels, texts = labels_and_texts(known)
            found = found._replace(labels=labels, texts=texts)
        yield found


def frame_of_smiles(smiles: str, id: str = "") -> Frame | DataError:
    """The Frame of one molecule, or why there is none. Raises MissingExtra without RDKit."""
    try:
        from rdkit import Chem, RDLogger
        from rdkit.Chem import AllChem
    except ImportError:
        raise MissingExtra("RDKit is not installed: run `pip install 'refattn[smiles]'` to read SMILES") from None
    RDLogger.DisableLog("rdApp.*")  # errors are said in a sentence
    shown = smiles if len(smiles) <= 60 else f"{smiles[:60]}…"
    found = Chem.MolFromSmiles(smiles) if smiles else None
    if found is None:
        return DataError(f"{shown!r} is no SMILES; repair it")
    if "." in smiles:
        return DataError(f"{shown!r} is more than one molecule; give each a line, or a structure")
    found = Chem.AddHs(found)
    if not found.GetNumAtoms() or any(atom.GetAtomicNum() == 0 for atom in found.GetAtoms()):
        return DataError(f"{shown!r} has atoms of no element; name them")
    options = AllChem.ETKDGv3()
    options.randomSeed = SEED
    if AllChem.EmbedMolecule(found, options) != 0:
        return DataError(f"{shown!r} cannot be embedded in space; give a structure")
    if AllChem.MMFFHasAllMoleculeParams(found):
        AllChem.MMFFOptimizeMolecule(found, maxIters=1000)
    numbers = [atom.GetAtomicNum() for atom in found.GetAtoms()]
    return Frame(id, {}, ase.Atoms(numbers, found.GetConformer().GetPositions()), {})
