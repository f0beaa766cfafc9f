"""What nobody should have to guess: notations that are read right or refused, and what is never silent."""

import bz2
import io
import json
import lzma
import os
import tarfile
import unicodedata

import pytest
from test_kinds_of_files import POSCAR, WATER, collected, labelled, packed, put, sdf, xyz

from refattn.common import archives
from refattn.data.sources.files import FilesSource, open_files, read_structures
from refattn.data.sources.labels import LabelError
from refattn.data.sources.registry import open_source
from refattn.errors import DataError

CELL = 'Lattice="5 0 0 0 6 0 0 0 7"'


@pytest.mark.parametrize(
    "comment",
    ["Lattice=[[5, 0, 0], [0, 6, 0], [0, 0, 7]] pbc=[T,F,T]", "Lattice={5 0 0 0 6 0 0 0 7} pbc='1 0 1'"],
)
def test_arrays_of_the_specification(tmp_path, comment):
    (record,) = FilesSource(put(tmp_path / "a.extxyz", xyz(comment)))
    assert record.atoms.cell.array.tolist() == [[5, 0, 0], [0, 6, 0], [0, 0, 7]]
    assert record.atoms.pbc.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        *((words, [True, True, False]) for words in ("T T F", "t t f", "1,1,0", "True TRUE f", "T 1 false")),
        *((word, [False] * 3) for word in ("f", "F", "0", "false")),
        *((word, [True] * 3) for word in ("t", "True", "1")),
    ],
)
def test_every_word_for_a_period_is_what_it_says(tmp_path, words, wanted):
    """ASE takes words that it does not know for a text, and a text for true."""
    (record,) = FilesSource(put(tmp_path / "a.extxyz", xyz(f'{CELL} pbc="{words}"')))
    assert record.atoms.pbc.tolist() == wanted


@pytest.mark.parametrize(
    ("comment", "reason"),
    [
        ('Lattice="5 0 0 0 6 0 0 0 7 gap=1', "Lattice in its comment line cannot be read; close its quotes"),
        ("cell 5 6 7 gap=1", "its cell is called cell"),
        ("unit cell: (5.0, 6.0, 7.0)", "its cell is called unit cell"),
        ("a=5 b=6 c=7 alpha=90 beta=90 gamma=90", "its cell is called a, b, c"),
        ('H="5 0 0 0 6 0 0 0 7"', "its cell is called H"),
        (f'{CELL} pbc="xy"', "pbc is 'xy'"),
        (f'{CELL} pbc="T T"', "pbc is 'T T'"),
        ("id= gap=1", "id in its comment line cannot be read"),
        ("occupancy=\"{'0': {'Sr': 0.5, 'La': 0.5}}\"", "its occupancy .* cannot be read"),
        ('occupancy={"0": {"Sr": 0.5}}', "the site 0 is shared by several elements or not full"),
        ("occupancy=0.5", "its occupancy '0.5' cannot be read"),
        ("a/b=1 a_b=2", "a/b and a_b are one label"),
        ("id=M\ufffd", "is no UTF-8"),
    ],
)
def test_comment_lines_that_are_refused(tmp_path, comment, reason):
    with pytest.raises(DataError, match=reason):
        list(FilesSource(put(tmp_path / "a.extxyz", xyz(comment))))


def test_columns_that_are_refused(tmp_path):
    for columns, reason in (("element:S:1:pos:R:3", "column of elements"), ("species:S:1:frac:R:3", "of positions")):
        with pytest.raises(DataError, match=f"has no column of .*{reason.split()[-1]}; call it"):
            list(FilesSource(put(tmp_path / "a.extxyz", f"1\nProperties={columns}\nO 0 0 0\n")))
    row = "1\nProperties=species:S:1:pos:R:3:{}\nO 0 0 0 {}\n"
    for column, value, reason in (("occ:R:1", "0.5", "`occ` says"), ("Z:I:1", "7", "O by its symbol and has")):
        with pytest.raises(DataError, match=reason):
            list(FilesSource(put(tmp_path / "a.extxyz", row.format(column, value))))
    assert len(list(FilesSource(put(tmp_path / "a.extxyz", row.format("Z:I:1", "8"))))) == 1
    (record,) = FilesSource(put(tmp_path / "a.xyz", xyz("", rows=WATER.replace("O", "8").replace("H", "1"))))
    assert record.atoms.get_chemical_formula() == "H2O"
    for rows in ("1 O 0 0 0\n", "1 8 0 0 0\n", "119 0 0 0\n"):  # a number of the line, no element
        with pytest.raises(DataError, match="numbers that are not all those of elements"):
            list(FilesSource(put(tmp_path / "a.xyz", f"1\n\n{rows}")))


def test_texts_of_other_encodings(tmp_path):
    (record,) = FilesSource(put(tmp_path / "a.xyz", xyz("M\u00fcller gap=1").encode("latin-1")))
    assert record.labels == {"gap": 1.0}
    with pytest.raises(DataError, match="UTF-16"):
        list(FilesSource(put(tmp_path / "a.xyz", xyz("").encode("utf-16"))))


def test_labels_that_are_no_numbers_are_never_silent(tmp_path):
    for text in ('gap="7.5 eV"', "gap=\u22127.5"):
        with pytest.raises(LabelError, match="gap is '"):
            collected(put(tmp_path / "a.extxyz", xyz(text)))
    source = open_source(put(tmp_path / "a.extxyz", xyz("id=a gap: 7.5", "id=b gap=T", 'id=c y="2 kcal" v="1 2 3"')))
    assert [record.labels for record in source] == [{}, {}, {}]
    gap, y = source.notes()
    assert gap.startswith("gap is no number in 2 structures, the first time 'gap: 7.5'")
    assert y.startswith("y is no number in 1 structure, the first time '2 kcal'")


def test_a_wrong_count_leaves_no_part_of_a_molecule(tmp_path):
    put(tmp_path / "a.xyz", xyz("id=good") + xyz("id=torn").replace("3\n", "2\n", 1))
    put(tmp_path / "b.xyz", xyz("id=b"))
    records, skipped = collected(tmp_path)
    assert [record.id for record in records] == ["good", "b"]
    assert "the count before may be wrong" in skipped["a"]


def test_molfiles_that_hold_more_than_they_count(tmp_path):
    water = sdf("w", ("gap", "7.5"))
    for text, reason in (
        (water.replace("  3  2", "  2  2"), "lists more atoms than the 2"),
        (2 * water.replace("$$$$\n", ""), "several molecules without"),
        (sdf("w", ("gap", "7.5"), ("gap", "8.5")), "its tag gap is 7.5 and 8.5"),
        (water.replace("7.5\n", "7.5\n> <homo>\n-7.5\n"), "gap is '7.5 > <homo> -7.5'"),
    ):
        with pytest.raises(DataError, match=reason):
            list(FilesSource(put(tmp_path / "a.sdf", text)))


def test_poscars_of_several_structures(tmp_path):
    """ASE reads all frames of an XDATCAR by its name; in a POSCAR none is taken for velocities."""
    header, positions = POSCAR.split("Direct\n")
    frames = "".join(f"Direct configuration={k:6d}\n{positions}" for k in (1, 2, 3))
    assert len(list(FilesSource(put(tmp_path / "XDATCAR", header + frames)))) == 3
    with pytest.raises(DataError, match="frames of an XDATCAR; rename the file to XDATCAR"):
        list(FilesSource(put(tmp_path / "a.vasp", header + frames)))
    for title in ("CaO", "diamond", "K", "c2/m"):
        text = POSCAR.replace("NaCl", title).replace("Na Cl", "K Cl")
        assert len(list(FilesSource(put(tmp_path / "a.vasp", text)))) == 1
        with pytest.raises(DataError, match="give one structure in a file"):
            list(FilesSource(put(tmp_path / "a.vasp", 2 * text)))


def test_links_in_a_tar(tmp_path):
    path = tmp_path / "set.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, kind, target in (
            ("x/early.xyz", tarfile.SYMTYPE, "../x/hard.xyz"),
            ("x/a.xyz", tarfile.REGTYPE, ""),
            ("x/hard.xyz", tarfile.LNKTYPE, "x/a.xyz"),
            ("x/far.xyz", tarfile.SYMTYPE, "/etc/passwd"),
            ("x/round.xyz", tarfile.SYMTYPE, "round.xyz"),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = target
            info.size = 0 if target else len(xyz("gap=1"))
            archive.addfile(info, None if target else io.BytesIO(xyz("gap=1").encode()))
    source = open_source(path)
    assert [record.id for record in source] == ["a", "early", "hard"]
    assert source.passed_over == ["x/far.xyz (no file)", "x/round.xyz (no file)"]


def test_long_names_in_an_archive(tmp_path):
    records, _ = collected(packed(tmp_path / "set.zip", {"n" * 300 + ".xyz": xyz(""), "b.xyz": xyz("")}))
    assert [len(record.id) for record in records] == [300, 1]


@pytest.mark.parametrize(("ending", "compress"), [("bz2", bz2.compress), ("xz", lzma.compress)])
def test_single_packed_files(tmp_path, monkeypatch, ending, compress):
    sites = '"sites": [{"species": [{"element": "Na", "occu": 1}], "abc": [0, 0, 0]}]'
    salt = '[{"id": "d", "structure": {"lattice": {"matrix": [[3, 0, 0], [0, 3, 0], [0, 0, 3]]}, ' + sites + "}}]"
    for name, text in (("b.sdf", sdf("w")), ("c.xyz", xyz("")), ("d.json", salt), ("POSCAR", POSCAR)):
        put(tmp_path / "set" / f"{name}.{ending}", compress(text.encode()))
    assert [record.id for record in collected(tmp_path / "set")[0]] == ["POSCAR", "b", "c", "d"]
    for damaged in (compress(xyz("").encode())[:-9], b"nonsense"):
        with pytest.raises(DataError, match="damaged"):
            list(FilesSource(put(tmp_path / f"cut.xyz.{ending}", damaged)))
    monkeypatch.setattr(archives, "SMALL", 1000)
    with pytest.raises(DataError, match="unpack to"):
        list(FilesSource(put(tmp_path / f"bomb.xyz.{ending}", compress(b"0" * 3_000_000))))


def test_ids_of_several_files(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "id=\u00fc") for form in ("NFC", "NFD"))
    paths = [put(tmp_path / "a" / "x.xyz", xyz(nfc)), put(tmp_path / "b" / "x.xyz", xyz(nfd, "id=b"))]
    with pytest.raises(DataError, match="is also that of"):
        list(read_structures(open_files(paths)))
    left_out = {}
    assert len(list(read_structures(open_files(paths), skip=left_out.__setitem__))) == 2
    assert len(left_out) == 1


def test_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "a.xyz")
    with pytest.raises(DataError, match="pipe or device"):
        FilesSource(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    "table",
    [
        "sep=;\nid;gap\na;1,5\nb;2,5\n",
        "id,gap,\na,1.5,\nb,2.5,\n",
        "id,gap\na,1.5,\nb,2.5,\n",
        "id,gap,x\na,1.5,NA\nb,2.5,null\n",
        "id,gap\na,1.5\nb,2.5\n".encode("utf-16"),
    ],
)
def test_tables_of_ordinary_programs(tmp_path, table):
    found, skipped, _ = labelled(tmp_path, table)
    assert [found[id]["gap"] for id in "ab"] == [1.5, 2.5]
    assert not skipped


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (",id,gap\n0,a,1.5\n1,b,2.5\n", "line 1: the first column, without a name, must hold the ids"),
        ("gap,id\n1.5,a\n2.5,b\n", "line 1: the first column, gap, must hold the ids"),
        ("id,gap (eV),gap (Ha)\na,1.5,1\nb,2.5,1\n", r"gap \(eV\) and gap \(Ha\) are both gap; choose one by --label"),
        ("id,gap/eV\na,1.5\nb,2.5\n", "line 1: gap/eV cannot name a label"),
        ('id,gap,x\na,"1,5",1\nb,"2,5",2\n', "line 2: gap is '1,5', not a number"),
        ("id,gap\na,1.5\nü,2.5\n".encode("latin-1"), "no text in UTF-8"),
    ],
)
def test_tables_that_are_refused(tmp_path, table, reason):
    with pytest.raises(DataError, match=f"labels.csv.*{reason}"):
        labelled(tmp_path, table)


def test_columns_of_one_name_are_chosen_by_their_units(tmp_path):
    found, _, source = labelled(tmp_path, "id,gap (eV),gap (Ha)\na,1.5,1\nb,2.5,1\n", names=("gap (eV)",))
    assert (found["a"], source.units) == ({"gap": 1.5}, {"gap": "eV"})


def test_a_table_wins_and_says_so(tmp_path):
    path = put(tmp_path / "set.extxyz", xyz("id=a gap=9", "id=b gap=2.5"))
    source = open_source(path, labels=put(tmp_path / "t.csv", "id,gap\na,1.5\nb,2.5\n"))
    assert [record.labels["gap"] for record in source] == [1.5, 2.5]
    assert source.notes() == [f"gap of 1 structure is another in {tmp_path / 't.csv'}, which was taken"]


@pytest.mark.parametrize("bad", [0, 1])
def test_an_order_with_a_hole_is_refused(tmp_path, bad):
    frames = [xyz(""), xyz(""), xyz("")]
    frames[bad] = frames[bad].replace("O", "Qq")
    path = put(tmp_path / "set.xyz", "".join(frames))
    with pytest.raises(LabelError, match=f"frame {bad}.* taken in the order of the structures"):
        collected(open_source(path, labels=put(tmp_path / "t.csv", "id,gap\nx,1.5\ny,2.5\n")))


def test_elements_are_not_guessed(tmp_path):
    """Names of atoms, numbers of types and masses are no elements; of rows none is lost."""
    gro = "t\n    1\n    1NA      NA    1   0.000   0.000   0.000\n   1.00000   1.00000   1.00000\n"
    put(tmp_path / "a.gro", gro)
    dump = (
        "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS pp pp pp\n0 10\n0 10\n0 10\nITEM: ATOMS id type"
    )
    put(tmp_path / "a.lammpstrj", f"{dump} x y z\n1 1 0 0 0\n")
    put(tmp_path / "a.xsf", "CRYSTAL\nPRIMVEC\n4 0 0\n0 4 0\n0 0 4\nPRIMCOORD\n1 1\n11 0 0 0\n17 2 2 2\n")
    for name, words in {"gro": "names of atoms", "lammpstrj": "numbers of types", "xsf": "counts 1 atoms"}.items():
        with pytest.raises(DataError, match=words):
            list(FilesSource(tmp_path / f"a.{name}"))
    put(tmp_path / "a.lammpstrj", f"{dump} element x y z\n1 1 O 0 0 0\n")
    put(tmp_path / "a.xsf", "CRYSTAL\nPRIMVEC\n4 0 0\n0 4 0\n0 0 4\nPRIMCOORD\n2 1\n11 0 0 0\n17 2 2 2\n")
    for name, formula in {"lammpstrj": "O", "xsf": "ClNa"}.items():
        (record,) = FilesSource(tmp_path / f"a.{name}")
        assert record.atoms.get_chemical_formula() == formula


def test_shelx_is_read_only_without_symmetry(tmp_path):
    text = "TITL a\nCELL 1.0 4 4 4 90 90 90\nLATT -1\nSFAC Na Cl\nNa 1 0.0 0.0 0.0 1.0\nCl 2 0.5 0.5 0.5 1.0\nEND\n"
    for names in ("Na Cl", "Na1 CL2A"):
        name, other = names.split()
        named = text.replace("\nNa 1", f"\n{name} 1").replace("\nCl 2", f"\n{other} 2")
        (record,) = FilesSource(put(tmp_path / "a.res", named))
        assert record.atoms.get_chemical_formula() == "ClNa"
    with pytest.raises(DataError, match="the atom Na is number 1 of SFAC, Cl"):
        list(FilesSource(put(tmp_path / "a.res", text.replace("SFAC Na Cl", "SFAC Cl Na"))))
    with pytest.raises(DataError, match="no line LATT -1"):
        list(FilesSource(put(tmp_path / "a.res", text.replace("LATT -1\n", ""))))
    for old, new in (("LATT -1", "LATT 1"), ("SFAC", "SYMM -X,Y,-Z\nSFAC"), ("5 1.0", "5 0.5")):
        with pytest.raises(DataError, match="changes the atoms listed|is not full"):
            list(FilesSource(put(tmp_path / "a.res", text.replace(old, new))))


# ---- rows of a table, and units ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "rows", "reason"),
    [
        ({"t.xyz": xyz("", "id=B")}, "B,1\nA,2\n", "frame 1: has the id B"),
        ({"a.xyz": xyz("", ""), "b.xyz": xyz("")}, "y,1\nx,2\nz,3\n", "b.xyz: has a name of its own"),
        ({"a.xyz": xyz("", ""), "b.xyz": xyz("", "")}, "y,1\nx,2\nz,3\nw,4\n", "frame 0: has a name of its own"),
        ({"x/a.xyz": xyz(""), "y/a.xyz": xyz("")}, "a,1\n", "labels.csv, line 2, a, is the row of x/a too"),
    ],
)
def test_a_row_is_that_of_one_structure(tmp_path, files, rows, reason):
    for name, text in files.items():
        put(tmp_path / "set" / name, text)
    table = put(tmp_path / "labels.csv", f"id,gap\n{rows}")
    with pytest.raises(LabelError, match=reason):
        list(FilesSource(tmp_path / "set", labels=table, recursive=True))


def test_a_comma_in_a_file_name(tmp_path):
    """What stands before it is no archive."""
    put(tmp_path / "set" / "a, b.xyz", xyz(""))
    put(tmp_path / "set" / "c.xyz", xyz(""))
    table = put(tmp_path / "labels.csv", "id,gap\nb,1\nc,2\n")
    with pytest.raises(DataError, match="has no row for a, b"):
        list(FilesSource(tmp_path / "set", labels=table))


def test_one_page_of_an_answer_is_not_the_answer(tmp_path):
    entry = {"id": "1", "species_at_sites": ["He"], "cartesian_site_positions": [[0, 0, 0]]}
    answer = {"data": [entry], "meta": {"more_data_available": True, "data_available": 900}}
    with pytest.raises(DataError, match="one page of an answer that has more"):
        list(FilesSource(put(tmp_path / "a.json", json.dumps(answer))))
    answer["meta"]["more_data_available"] = False
    assert len(list(FilesSource(put(tmp_path / "a.json", json.dumps(answer))))) == 1


def test_two_energies_of_one_record(tmp_path):
    lattice = {"matrix": [[5, 0, 0], [0, 5, 0], [0, 0, 5]]}
    sites = [{"species": [{"element": "He", "occu": 1}], "abc": [0, 0, 0]}]
    structure = {"@module": "pymatgen.core.structure", "@class": "Structure", "lattice": lattice, "sites": sites}
    for other, n_read in ((-1, 1), (-2, 0)):
        record = {"structure": structure, "energy": -1, "data": {"energy": other}}
        source = FilesSource(put(tmp_path / "a.json", json.dumps([record])))
        source.skip_quietly()
        assert len(list(source)) == n_read
        assert n_read or "energy is -1 beside the structure and -2 in its data" in source.skipped[0][1]


@pytest.mark.parametrize(
    "id", [r"C:\mols\new", r"C:\my mols\table", r"a b\c", r"line\nbreak of", 'say \\"yes\\" twice']
)
def test_a_backslash_is_one_but_before_a_quote(tmp_path, id):
    quoted = f'"{id}"' if " " in id else id
    (tmp_path / "a.extxyz").write_text(f"1\nProperties=species:S:1:pos:R:3 id={quoted}\nC 0 0 0\n")
    [record] = open_source(tmp_path / "a.extxyz")
    assert record.id == id.replace('\\"', '"')
