"""What .mol and .sdf leave open: empty records, and hydrogen atoms that bonds mean but nobody lists."""

import re

import pytest
from extras import needs_rdkit
from test_kinds_of_files import collected, put, sdf

from refattn.data.sources.files import FilesSource
from refattn.data.sources.sdf import read_sdf
from refattn.errors import DataError

END = "$$$$\n"
# Aromatic ones, charges, hypervalent P and S, and small ones; the numbers of hydrogen atoms are RDKit's.
MOLECULES = (
    *("CO", "c1ccccc1", "c1cc[nH]c1", "o1cccc1", "c1ccncc1", "c1ccsc1", "c1ccc2ccccc2c1", "Cn1cnc2c1c(=O)n(C)c(=O)n2C"),
    *("C[N+](=O)[O-]", "[O-]C(=O)C[NH3+]", "CN=[N+]=[N-]", "C[N+]#[C-]", "[O-][n+]1ccccc1", "c1cc[nH+]cc1", "[NH4+]"),
    *("C[N-]C", "C[O-]", "[CH3+]", "[CH3-]", "[OH3+]", "CS(=O)(=O)C", "OP(=O)(O)O", "C[Si](C)(C)C", "CC#N", "N#N"),
)


def molfile(symbols, bonds, *properties, fields=()):
    """A V2000 block; `fields`: (number of an atom, what stands behind its symbol)."""
    fields = dict(fields)
    lines = ["made", "  prog    01010100003D", "", f"{len(symbols):3d}{len(bonds):3d}  0  0  0  0  0  0  0  0999 V2000"]
    for k, symbol in enumerate(symbols):
        lines.append(f"{1.5 * k:10.4f}{0:10.4f}{1:10.4f} {symbol:<3s}{fields.get(k + 1, ' 0  0')}")
    return "\n".join([*lines, *("".join(f"{x:3d}" for x in bond) for bond in bonds), *properties, "M  END", ""])


def test_empty_records_do_not_end_a_file(tmp_path):
    """As many molecules as are written, wherever nothing stands between two ends; blanks at the end are no record."""
    first, second = sdf("a", ("id", "a")), sdf("b", ("id", "b"))
    for text, n_empty in (
        (first + second + "\n\n", 0),
        (first + END + second, 1),
        (first + "\n" + END + "  \n" + END + second, 2),
        (END + first + second + "\n" + END, 2),
    ):
        records, skipped = collected(put(tmp_path / "set.sdf", text))
        assert [record.id for record in records] == ["a", "b"]
        assert len(skipped) == n_empty and all("(it is empty)" in reason for reason in skipped.values())


@needs_rdkit
@pytest.mark.parametrize("kekulize", [True, False])
@pytest.mark.parametrize("v3000", [True, False])
def test_hydrogen_atoms_that_bonds_mean(kekulize, v3000):
    """Blocks that RDKit writes are molecules with all of its hydrogen atoms, and none without."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    for smiles in MOLECULES:
        whole = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(whole, randomSeed=0)
        bare = Chem.RemoveHs(whole)
        blocks = [Chem.MolToMolBlock(m, kekulize=kekulize, forceV3000=v3000) for m in (whole, bare)]
        found, refused = (next(read_sdf(block.splitlines(keepends=True))) for block in blocks)
        assert [atom.GetAtomicNum() for atom in whole.GetAtoms()] == found.atoms.numbers.tolist(), smiles
        missing = whole.GetNumAtoms() - bare.GetNumAtoms()
        if missing:
            assert isinstance(refused, DataError), smiles
            counted = int(re.search(r"leave room for (\d+) hydrogen atoms? without coordinates", str(refused))[1])
            assert counted == missing or (not kekulize and counted < missing), smiles  # 1.5 + 1.5 may be whole for N


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (molfile("CO", [(1, 2, 1)]), r"room for 4 hydrogen atoms without coordinates, 3 of them at C1; add them"),
        (molfile("O", []), "room for 2 hydrogen atoms"),
        (molfile("CO", [(1, 2, 1)], "M  CHG  1   2  -1"), "room for 3 hydrogen atoms"),
        (molfile("CO", [(1, 2, 1)], fields=[(2, " 0  5")]), "room for 3 hydrogen atoms"),
        (molfile("CO", [(1, 2, 1)], fields=[(1, " 0  0  0  0  0  1")]), "room for 1 hydrogen atom without"),
        (molfile("CN", [(1, 2, 4)]).replace("  2  1  0", "  2  2  0"), "are not the 2 that it counts"),
        (molfile("CN", [(1, 3, 1)]), "are not the 1 that it counts, between its atoms"),
    ],
)
def test_bonds_with_room(tmp_path, block, words):
    """CH3-OH; H2O; CH3-O(-), with either way to write the charge; C of valence 1 by its line; bonds that are none."""
    with pytest.raises(DataError, match=words):
        list(FilesSource(put(tmp_path / "a.mol", block)))


METHYL = [(1, 2, 1), (1, 3, 1), (1, 4, 1)]


@pytest.mark.parametrize(
    "block",
    [
        molfile("CO", []),
        molfile("CO", [(1, 2, 8)]),
        molfile("CHHH", METHYL, "M  RAD  1   1   2"),
        molfile("CHHH", METHYL, fields=[(1, " 0  4")]),
        molfile("CHHH", METHYL, fields=[(1, " 0  0  0  0  0  3")]),
        molfile("CHHHNOO", [*METHYL, (1, 5, 1), (5, 6, 2), (5, 7, 2)]),
        molfile("CHHHNOO", [*METHYL, (1, 5, 1), (5, 6, 2), (5, 7, 1)]),
        molfile(["Fe", "C", "O"], [(1, 2, 1), (2, 3, 3)]),
    ],
)
def test_bonds_that_say_nothing_of_hydrogen(tmp_path, block):
    """No bonds; of any order; radicals, three ways; nitro groups without charges, two ways; a complex."""
    (record,) = FilesSource(put(tmp_path / "a.mol", block))
    assert len(record.atoms) == int(block.splitlines()[3][:3])
