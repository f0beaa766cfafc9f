"""CIF, mmCIF and PDB: what is read is what the file says, and what contradicts itself is refused in a sentence."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.geometry import cellpar_to_cell
from ase.spacegroup import Spacegroup

from refattn.data.sources.cif import element_of, read_cif
from refattn.data.sources.files import FilesSource
from refattn.data.sources.pdb import read_pdb
from refattn.data.sources.symmetry import groups_of, listed_operations
from refattn.errors import DataError, StructureError
from refattn.structures.batch import GraphBatch

P1 = "_symmetry_space_group_name_H-M 'P 1'\nloop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n"
FCC = "_symmetry_space_group_name_H-M 'F m -3 m'\n_symmetry_Int_Tables_number 225\n"
SALT = "Na1 Na 0 0 0\nCl1 Cl 0.5 0.5 0.5\n"
COLUMNS = ("label", "type_symbol", "fract_x", "fract_y", "fract_z")


def cif(cell, head, sites, *more_columns):
    """A CIF with one loop of sites; `cell` are a, b, c, alpha, beta, gamma, or one length of a cube."""
    cell = (cell, cell, cell, 90, 90, 90) if isinstance(cell, (int, float)) else cell
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = ["data_x", *(f"_cell_{name} {value}" for name, value in zip(names, cell))]
    columns = [f"_atom_site_{name}" for name in (*COLUMNS, *more_columns)]
    return "\n".join([*lines, head.strip(), "loop_", *columns, sites])


def atoms_of(text):
    (found,) = read_cif(text)
    if isinstance(found, DataError):
        raise found
    return found


def nearest(atoms):
    graph = GraphBatch.from_atoms(atoms, r_max=6.0)
    return graph.r.min()


HCP = (3.2, 3.2, 5.2, 90, 90, 120)
BISMUTH = (4.746, 4.746, 4.746, 57.2, 57.2, 57.2)
ZIRCONIA = (5.1, 5.2, 5.3, 90, 99.2, 90)
R3 = [("x", "y"), ("-y", "x-y"), ("-x+y", "-x")]
R3M = ["x,y,z", "z,x,y", "y,z,x", "-y,-x,-z", "-x,-z,-y", "-z,-y,-x"]
R3M += ["-x,-y,-z", "-z,-x,-y", "-y,-z,-x", "y,x,z", "x,z,y", "z,y,x"]


def listed(*triplets):
    return "loop_\n_symmetry_equiv_pos_as_xyz\n" + "\n".join(f"'{t}'" for t in triplets) + "\n"


def symbol(text):
    return f"_symmetry_space_group_name_H-M '{text}'\n"


READ = {
    "as ever": (cif(5.64, FCC, SALT), "Cl4Na4", 2.82),
    "byte order mark": ("\ufeff" + cif(5.64, FCC, SALT), "Cl4Na4", 2.82),
    "no symmetry named": (cif(5.64, "", SALT), "ClNa", 4.884),
    "three digits": (cif(HCP, symbol("P 63/m m c"), "Mg1 Mg 0.333 0.667 0.25"), "Mg2", 3.190),
    "cut digits": (cif(HCP, symbol("P 63/m m c"), "Mg1 Mg 0.3333 0.6666 0.25"), "Mg2", 3.190),
    "two digits": (cif(HCP, symbol("P 63/m m c"), "Mg1 Mg 0.33 0.67 0.25"), "Mg2", 3.190),
    "origin Z": (cif(5.43, symbol("F d -3 m Z"), "Si1 Si 0.125 0.125 0.125"), "Si8", 2.351),
    "origin :2": (cif(5.43, symbol("F d -3 m :2"), "Si1 Si 0.125 0.125 0.125"), "Si8", 2.351),
    "origin S": (cif(5.43, symbol("F d -3 m S"), "Si1 Si 0 0 0"), "Si8", 2.351),
    "Hall symbol": (cif(5.43, "_space_group_name_Hall '-F 4vw 2vw 3'", "Si1 Si 0.125 0.125 0.125"), "Si8", 2.351),
    "origin by the formula": (
        cif(5.43, symbol("F d -3 m") + "_chemical_formula_sum Si\n_cell_formula_units_Z 8\n", "Si1 Si 0 0 0"),
        "Si8",
        2.351,
    ),
    "rhombohedral :R": (cif(BISMUTH, symbol("R -3 m :R"), "Bi1 Bi 0.2339 0.2339 0.2339"), "Bi2", 3.070),
    "rhombohedral by the cell": (cif(BISMUTH, symbol("R -3 m"), "Bi1 Bi 0.2339 0.2339 0.2339"), "Bi2", 3.070),
    "rhombohedral by its operations": (
        cif(BISMUTH, symbol("R -3 m :R") + listed(*R3M), "Bi1 Bi 0.2339 0.2339 0.2339"),
        "Bi2",
        3.070,
    ),
    "operations alone": (cif(2.87, listed("x,y,z", "x+1/2,y+1/2,z+1/2"), "Fe1 Fe 0 0 0"), "Fe2", 2.485),
    "full symbol": (
        cif(
            (2.7, 4.4, 4.7, 90, 90, 90),
            symbol("P 21/m 21/m 2/n (origin choice 2)"),
            "Ti1 Ti 0.25 0.25 0.083\nAl1 Al 0.25 0.75 0.417",
        ),
        "Al2Ti2",
        2.697,
    ),
    "operations of another origin": (
        cif(4.0, symbol("P 21/m") + listed("x,y,z", "-x,-y+1/2,-z", "-x,y+1/2,-z", "x,-y,z"), "Cu1 Cu 0 0 0"),
        "Cu2",
        None,
    ),
    "operations by another choice of the rhombohedral lattice": (
        cif(
            (4, 4, 9, 90, 90, 120),
            symbol("R 3") + listed(*(f"{x}+{k}/3,{y}+{3 - k}/3,z+{k}/3" for k in range(3) for x, y in R3)),
            "Cu1 Cu 0 0 0",
        ),
        "Cu3",
        None,
    ),
    "operations that the formula prefers to the name": (
        cif(5.64, FCC + listed("x,y,z") + "_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 1\n", SALT),
        "ClNa",
        None,
    ),
    "multiplicities": (cif(5.64, FCC, "Na1 Na 0 0 0 4\nCl1 Cl .5 .5 .5 4", "symmetry_multiplicity"), "Cl4Na4", 2.82),
    "multiplicities of a primitive cell": (
        cif(5.64, FCC, "Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .5 1", "symmetry_multiplicity"),
        "Cl4Na4",
        2.82,
    ),
    "orders of the site symmetry by SHELXL-97": (
        cif(5.64, FCC, "Na1 Na 0 0 0 48\nCl1 Cl .5 .5 .5 48", "symmetry_multiplicity"),
        "Cl4Na4",
        2.82,
    ),
    "quotes": (cif(5.64, FCC, "'Na1' 'Na' '0' \"0\" '0.0(1)'\nCl1 Cl 0.5 0.5 0.5"), "Cl4Na4", 2.82),
    "another unique axis": (cif((4, 5, 6, 90, 90, 100), symbol("P 2"), "He1 He 0.2 0.1 0.3"), "He2", None),
    "tritium": (cif(4.0, P1, "Li1 Li 0 0 0\nT1 T .5 .5 .5"), "HLi", 3.464),
    "charges": (cif(5.64, P1, "Na1 Na1+ 0 0 0\nCl1 Cl- 0.5 0.5 0.5"), "ClNa", 4.884),
    "uncertainties": (cif(["5.640(2)", "5.64(1)", "5.64", "90", "90", "90"], P1, "Na1 Na 0.0000(3) 0 0"), "Na", 5.64),
    "a formula of the cell": (
        cif(5.64, FCC + "_chemical_formula_sum 'Na4 Cl4'\n_cell_formula_units_Z 4\n", SALT),
        "Cl4Na4",
        2.82,
    ),
    "labels alone": (cif(5.0, P1, "ZN1 ? 0 0 0\nO ? 0.5 0 0\nNa2 ? 0.5 0.5 0\nC1A ? 0 0.5 0"), "ZnONaC", None),
    "labels that a formula explains": (
        cif(5.0, P1 + "_chemical_formula_sum 'H2 O'", "Ow1 ? 0 0 0\nHw1 ? 0.19 0 0\nHW2 ? 0 0.19 0"),
        "H2O",
        None,
    ),
    "a dummy": (cif(5.64, FCC, "Na1 Na 0 0 0 .\nCl1 Cl 0.5 0.5 0.5 .\nX1 ? ? ? ? dum", "calc_flag"), "Cl4Na4", 2.82),
}


@pytest.mark.parametrize("case", READ)
def test_what_a_file_says_is_read(case):
    text, formula, distance = READ[case]
    atoms = atoms_of(text)
    assert sorted(atoms.numbers) == sorted(Atoms(formula).numbers)
    assert atoms.pbc.all()
    if distance:
        assert nearest(atoms) == pytest.approx(distance, abs=6e-4)


HALF = "Sr1 Sr 0 0 0 0.5\nLa1 La 0 0 0 0.5\nTi1 Ti .5 .5 .5 1"
GROUPS = "C1 C 0 0 0 . .\nF1A F 0.2 0 0 A 1\nF1B F 0.18 0.06 0 A 2"
REFUSED = {
    "two elements on a site": (cif(3.9, P1, HALF, "occupancy"), "Sr1 is occupied by 0.5"),
    "half a site": (cif(5.0, P1, "Li1 Li 0 0 0 0.5\nO1 O .5 .5 .5 1", "occupancy"), "Li1 is occupied by 0.5"),
    "unknown occupancy": (cif(5.0, P1, "Li1 Li 0 0 0 ?", "occupancy"), "Li1 is occupied by \\?"),
    "more than one": (cif(5.0, P1, "Li1 Li 0 0 0 2", "occupancy"), "Li1 is occupied by 2"),
    "alternatives": (cif(6.0, P1, GROUPS, "disorder_assembly", "disorder_group"), "F1B is one of several"),
    "disorder about an element of symmetry": (
        cif(6.0, P1, "C1 C 0 0 0 .\nF1 F 0.2 0 0 -1", "disorder_group"),
        "F1 is one of several",
    ),
    "unknown coordinates": (cif(5.64, P1, "Na1 Na 0 0 0\nCl1 Cl ? ? ?"), "coordinates of Cl1 are unknown"),
    "decimal comma": (cif(5.64, P1, "Na1 Na 0 0 0,5"), "coordinates of Na1 are '0,5'"),
    "hydrogen without coordinates": (cif(5.0, P1, "C1 C 0 0 0 3", "attached_hydrogens"), "3 hydrogen atoms at C1"),
    "water as one site": (cif(5.0, P1, "O1 Wat 0 0 0"), "element of the site O1 is 'Wat'"),
    "a label for an element": (cif(5.0, P1, "Wat1 ? 0 0 0"), "element of the site Wat1"),
    "a label that nothing explains": (cif(5.0, P1, "Ow1 ? 0 0 0"), "element of the site Ow1"),
    "calcium or carbon": (cif(5.0, P1, "CA1 ? 0 0 0"), "element of the site CA1"),
    "no cell": (
        "data_x\nloop_\n" + "\n".join(f"_atom_site_{name}" for name in COLUMNS) + "\n" + SALT,
        "has no cell",
    ),
    "half a cell": (cif(5.64, FCC, SALT).replace("_cell_length_b 5.64", "_cell_length_b ?"), "has no cell"),
    "an immense cell": (cif(5e5, FCC, SALT), "is none"),
    "an immense coordinate": (cif(5.64, FCC, "Na1 Na 0 1e300 0"), "coordinates of Na1 are '1e300'"),
    "impossible angles": (cif((5, 5, 5, 90, 90, 190), P1, SALT), "is none"),
    "a word too many": (
        cif(9, P1, "C1 C 0 0 0 1 .\nC2 C 0.2 0 0 0.5 A 2\nO1 O 0.3 0 0 1 .", "occupancy", "disorder_group"),
        "line 21 has 8 values for 7 columns: 'C2 C 0.2 0 0 0.5 A 2'",
    ),
    "no sites": ("data_x\n_cell_length_a 3\n", "lists no sites"),
    "no CIF": ("Na 0 0 0\n", "no valid CIF"),
    "an origin that is left open": (cif(5.43, symbol("F d -3 m"), "Si1 Si 0 0 0"), "several settings"),
    "a number with several settings": (
        cif((4, 5, 6, 90, 90, 90), "_symmetry_Int_Tables_number 62", "Fe1 Fe 0.1 0.25 0.1"),
        "several settings",
    ),
    "a number that is none": (cif(5.64, "_symmetry_Int_Tables_number 'No. 225'", SALT), "space group is 'No. 225'"),
    "an unknown group": (cif(5.0, symbol("Q 1 7"), "Na1 Na 0 0 0"), "space group 'Q 1 7' is not known"),
    "an unknown Hall symbol": (cif(5.0, "_space_group_name_Hall 'nonsense'", "Na1 Na 0 0 0"), "Hall symbol 'nonsense'"),
    "two groups": (
        cif(5.64, symbol("F m -3 m") + "_symmetry_Int_Tables_number 221", SALT),
        "is number 225, the file says 221",
    ),
    "a cell without the symmetry": (
        cif((5, 5, 6, 90, 90, 90), symbol("P m -3 m"), "Na1 Na 0 0 0"),
        "cell does not have",
    ),
    "operations that the cell does not have": (
        cif((4, 5, 6, 90, 90, 90), listed("x,y,z", "z,x,y", "y,z,x"), "Na1 Na 0 0 0"),
        "cell does not have",
    ),
    "a list with gaps": (cif(4, listed("x,y,z", "z,x,y"), "Na1 Na 0 0 0"), "no group, some are missing"),
    "a list of one": (
        cif(5.64, symbol("F m -3 m") + listed("x,y,z"), SALT),
        "operations that it lists are not of its space group F m -3 m",
    ),
    "a list without the screw": (
        cif(4.0, symbol("P 21/m") + listed("x,y,z", "-x,-y,-z", "-x,y,-z", "x,-y,z"), "Cu1 Cu 0 0 0"),
        "not of its space group P 1 21/m 1",
    ),
    "a list of another setting": (
        cif(
            ZIRCONIA,
            symbol("P 21/n") + listed("x,y,z", "-x,y+1/2,-z+1/2", "-x,-y,-z", "x,-y+1/2,z+1/2"),
            "Zr1 Zr 0.275 0.04 0.208",
        ),
        "not of its space group P 1 21/n 1",
    ),
    "a list without centring": (
        cif(5.64, symbol("I 2/m") + listed("x,y,z", "-x,-y,-z", "-x,y,-z", "x,-y,z"), "Cu1 Cu 0 0 0"),
        "not of its space group I 1 2/m 1",
    ),
    "a Hall symbol of another group": (
        cif(5.64, symbol("F m -3 m") + "_space_group_name_Hall '-P 4 2 3'", SALT),
        "the Hall symbol -P 4 2 3 is not of its space group F m -3 m",
    ),
    "another multiplicity": (
        cif(5.64, FCC, "Na1 Na 0 0 0 4\nCl1 Cl .5 .5 .5 8", "site_symmetry_multiplicity"),
        "the site Cl1 has 4 images, its multiplicity is 8",
    ),
    "two cells": (
        cif(5.64, FCC, SALT).replace("_cell_length_a 5.64", "loop_\n_cell_length_a\n5.64\n6\n"),
        "_cell_length_a has 2 values",
    ),
    "an operation that is none": (
        cif(4, listed("x,y,z", "x+1/7,y,z"), "Na1 Na 0 0 0"),
        "'x\\+1/7,y,z' is no operation",
    ),
    "too few atoms for the formula": (
        cif(5.64, P1 + "_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 4", SALT),
        "sites make ClNa in a cell, its formula is Na Cl with Z = 4",
    ),
    "atoms that the formula has": (
        cif(5.0, P1 + "_chemical_formula_sum 'C2 H6 O'", "C1 C 0 0 0\nC2 C 0.3 0 0\nO1 O 0.5 0 0"),
        "its formula is C2 H6 O",
    ),
    "a cell of another volume": (
        cif(5.0, P1 + "_cell_volume 152.0(3)", "Na1 Na 0 0 0"),
        "its cell has 125 Å.3, the file says 152",
    ),
    "modulated": (cif(5.0, P1 + "_cell_modulation_dimension 1", "Na1 Na 0 0 0"), "modulated"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_file_leaves_open_or_contradicts_is_refused(case):
    text, words = REFUSED[case]
    with pytest.raises(DataError, match=words) as caught:
        atoms_of(text)
    assert "\n" not in str(caught.value)


def test_positions_beside_a_special_one_are_too_near():
    """0.126 is not 0.125 rounded: what symmetry makes of it stays apart, and is refused by its geometry."""
    atoms = atoms_of(cif(5.43, symbol("F d -3 m :2"), "Si1 Si 0.125 0.125 0.126"))
    assert len(atoms) > 8
    with pytest.raises(StructureError, match=r"\(Si\) are 0.00"):
        GraphBatch.from_atoms(atoms)
    twice = atoms_of(cif(4.0, listed("x,y,z", "-x,-y,-z"), "Na1 Na 0.1 0 0\nNa2 Na 0.9 0 0"))
    with pytest.raises(StructureError, match="coincide"):
        GraphBatch.from_atoms(twice)


def test_monoclinic_settings():
    """P 21/n is P 21/c in other axes: each oxygen goes where that setting's operations send it."""
    sites = "Zr1 Zr 0.275 0.04 0.208\nO1 O 0.07 0.332 0.345"
    atoms = atoms_of(cif(ZIRCONIA, symbol("P 21/n"), sites))
    assert sorted(atoms.symbols) == 4 * ["O"] + 4 * ["Zr"]
    x = np.array([0.275, 0.04, 0.208])
    wanted = [x, -x, 0.5 - x * [1, -1, 1], 0.5 + x * [1, -1, 1]]
    found = atoms.get_scaled_positions()[atoms.numbers == 40]
    assert sorted((np.round(found, 9) % 1).tolist()) == sorted((np.round(wanted, 9) % 1).tolist())


@pytest.mark.parametrize("number", [2, 14, 62, 139, 166, 194, 216, 225, 229])
def test_named_groups_agree_with_ase(number):
    group = Spacegroup(number)
    cells = {2: (4, 5, 6, 80, 85, 95), 14: (4, 5, 6, 90, 95, 90), 62: (4, 5, 6, 90, 90, 90), 139: (4, 4, 6, 90, 90, 90)}
    cells |= {166: (4, 4, 9, 90, 90, 120), 194: (4, 4, 9, 90, 90, 120)}
    cell = cells.get(number, (8, 8, 8, 90, 90, 90))
    atoms = atoms_of(cif(cell, symbol(group.symbol), "Na1 Na 0.1234 0.2345 0.3456"))
    wanted, _ = group.equivalent_sites([(0.1234, 0.2345, 0.3456)])
    by_ase = Atoms("Na" * len(wanted), wanted @ cellpar_to_cell(cell), cell=cell, pbc=True)
    distances = [np.sort(found.get_all_distances(mic=True), axis=None) for found in (atoms, by_ase)]
    np.testing.assert_allclose(*distances, atol=1e-6)


def test_symbols_of_one_group():
    for name in ("Fm-3m", "F m 3 m", "F 4/m -3 2/m", "F m -3 m"):
        assert [group.number for group in groups_of(name, None)] == [225]
    for name in ("P 21/c", "P 1 21/c 1", "P2(1)/c", "P 2_1/c"):
        assert [group.xhm() for group in groups_of(name, None)] == ["P 1 21/c 1"]
    assert [group.ext for group in groups_of("F d -3 m", None)] == ["1", "2"]
    for name, wanted in {"P 1-": 2, "P 21/b": 14, "P b": 7, "F 43 m": 216, "R -3 m (hex)": 166}.items():
        assert [group.number for group in groups_of(name, None)] == [wanted]
    assert groups_of("P 3 2", None) == []  # P 32, or P 3 2 1
    assert [group.number for group in groups_of("P 3 2", 145)] == [145]
    assert groups_of("no group", None) == []
    with pytest.raises(DataError, match="listed twice"):
        listed_operations(("x,y,z", "x,y,z"))


def test_elements():
    symbols = {"Na": 11, "Na1+": 11, "O2-": 8, "O-2": 8, "D": 1, "T": 1, "CL": 17, "Fe3+": 26, "Na1": 11}
    assert {symbol: element_of(symbol) for symbol in symbols} == symbols
    assert not any(map(element_of, ("", "X", "Wat", "Na0.5K0.5", "1", "Uuo9x", "?")))


def test_blocks_are_structures(tmp_path):
    """One that cannot be read is named, the others are read; blocks without sites are none."""
    text = "data_global\n_title text\n" + cif(5.64, FCC, SALT).replace("data_x", "data_a")
    text += "\n" + cif(3.9, P1, HALF, "occupancy").replace("data_x", "data_b")
    text += "\n" + cif(4.0, P1, "Cu1 Cu 0 0 0").replace("data_x", "data_c")
    (tmp_path / "set.cif").write_text(text)
    source = FilesSource(tmp_path / "set.cif")
    source.skip_quietly()
    assert [record.id for record in source] == ["set-0", "set-2"]
    ((id, reason),) = source.skipped
    assert id == "set-1"
    assert "set.cif, frame 1: the site Sr1" in reason
    salt = cif(5.64, FCC, SALT) + "\n"
    assert [len(atoms) for atoms in read_cif(salt + salt)] == [8, 8]  # though of one name


WATER = (("O", (0, 0, 0)), ("H1", (0.96, 0, 0)), ("H2", (-0.24, 0.93, 0)))


def pdb(*records, alternate=" ", occupancy=1.0):
    line = "HETATM{:5d} {:<4s}{}LIG A   1    {:8.3f}{:8.3f}{:8.3f}{:6.2f}  0.00          {:>2s}"
    return "".join(
        line.format(k, f" {name}", alternate, *position, occupancy, name[0]) + "\n"
        for k, (name, position) in enumerate(records, 1)
    )


def cryst1(a, group="P 1"):
    return f"CRYST1{a:9.3f}{a:9.3f}{a:9.3f}  90.00  90.00  90.00 {group:<11s}   1\n"


def pdb_of(text):
    found = list(read_pdb(text))
    return [
        str(one) if isinstance(one, DataError) else (one.get_chemical_formula(), bool(one.pbc.all())) for one in found
    ]


def test_pdb():
    water = pdb(*WATER)
    assert pdb_of(water + "END\n") == [("H2O", False)]
    assert pdb_of(cryst1(1.0) + water) == [("H2O", False)]  # the dummy of 1 Å
    assert pdb_of(cryst1(10.0) + water) == [("H2O", True)]
    moved = pdb(("O", (1, 2, 3)))
    assert pdb_of(cryst1(10.0, "P 21 21 21") + moved) == [("O4", True)]
    assert pdb_of(pdb(*WATER, occupancy=0)) == [("H2O", False)]  # as some programs leave it
    assert pdb_of(water.replace(" H\n", " D\n", 1).replace(" H\n", " T\n", 1)) == [("H2O", False)]
    for name in (" O  ", "O   ", " OXT"):
        assert pdb_of(water.replace(" O   LIG", f"{name} LIG").replace(" O\n", "\n")) == [("H2O", False)]
    models = "".join(f"MODEL     {k}\n{water}ENDMDL\n" for k in (1, 2, 2))
    assert pdb_of(cryst1(10.0) + models) == 3 * [("H2O", True)]
    assert pdb_of(f"{water}END\n{water}END\n") == 2 * [("H2O", False)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (pdb(*WATER) + pdb(("H2", (-0.2, 0.95, 0.1)), alternate="B"), "alternate locations"),
        (pdb(*WATER, occupancy=0.5), "occupied by 0.5"),
        (pdb(*WATER).replace("   0.960", "   0.9x0"), "no numbers in columns 31 to 54"),
        (pdb(*WATER).replace("   0.930   0.000  1.00  0.00           H", "   0.930"), "no numbers in columns 31 to 54"),
        (cryst1(10.0) + "SCALE1      0.100000  0.050000  0.000000        0.00000\n"
         "SCALE2      0.000000  0.100000  0.000000        0.00000\n"
         "SCALE3      0.000000  0.000000  0.100000        0.00000\n" + pdb(*WATER), "Cartesian axes"),
        (pdb(("X", (0, 0, 0))), "element"),
        (pdb(*WATER).replace(" O   LIG", "CA   LIG").replace("  O\n", "\n"), "atom CA has no element"),
        (pdb(*WATER).replace(" O   LIG", " UNK LIG").replace("  O\n", "\n"), "atom UNK has no element"),
    ],
)  # fmt: skip
def test_pdb_that_is_no_ordered_structure(text, words):
    (reason,) = pdb_of(text)
    assert words in reason


def test_mmcif():
    """Models apart, alternates refused, the group applied to Cartesian coordinates."""
    columns = ("id", "type_symbol", "label_alt_id", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "pdbx_PDB_model_num")
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    head = ["data_1ABC", *(f"_cell.{name} {value}" for name, value in zip(names, (10, 10, 10, 90, 90, 90)))]
    head += ["_symmetry.space_group_name_H-M 'P 21 21 21'", "loop_", *(f"_atom_site.{name}" for name in columns)]
    rows = ["1 O . 1.0 2.0 3.0 1.00 1", "2 N . 2.0 4.0 3.0 1.00 1", "3 O . 1.0 2.0 3.5 1.00 2"]
    first, second = read_cif("\n".join([*head, *rows]))
    assert (first.get_chemical_formula(), second.get_chemical_formula()) == ("N4O4", "O4")
    (refused,) = read_cif("\n".join([*head, rows[0].replace(" . ", " A ")]))
    assert "alternate locations" in str(refused)


def test_special_positions_of_every_rounding():
    """A site on a threefold axis is one atom with two to nine digits, rounded or cut."""
    for digits, cut in itertools.product(range(2, 10), (False, True)):
        scale = 10**digits
        x, y = (int(scale * v) / scale if cut else round(v, digits) for v in (1 / 3, 2 / 3))
        atoms = atoms_of(cif(HCP, symbol("P 63/m m c"), f"Mg1 Mg {x:.{digits}f} {y:.{digits}f} 0.25"))
        assert len(atoms) == 2, (digits, cut)
        assert nearest(atoms) == pytest.approx(3.18957, abs=1e-5)
