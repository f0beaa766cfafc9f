"""Structures from CIF and mmCIF by gemmi, held to what the file says of itself.

gemmi parses the text; here its items become atoms. Nothing is guessed: mixed and partial occupancy, alternatives of
disorder, unknown coordinates, a missing cell, a setting that is left open and a composition that contradicts the
formula are refused, each in a sentence. Tags are compared without case, and `.` of mmCIF is `_`.

Source   core dictionary 2.4 and mmCIF dictionary of the IUCr for the tags and their defaults
"""

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator

import ase
import gemmi
import numpy as np
from ase.data import atomic_numbers
from ase.geometry import cellpar_to_cell

from refattn.data.sources import symmetry
from refattn.data.sources.extxyz import ISOTOPES
from refattn.errors import DataError, in_one_line

UNKNOWN = ("?", ".")
BLOCK = re.compile(r"(?mi)^data_\S*")
CELL = [f"_cell_{name}" for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")]
LISTED = (
    "_space_group_symop_operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop_magn_operation_xyz",
)
CENTRED = "_space_group_symop_magn_centering_xyz"
HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
SYMBOL = ("_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m", "_space_group_name_h-m_full")
NUMBER = ("_space_group_it_number", "_symmetry_int_tables_number")
OCCUPIED = 0.995  # less than this is partial
VOLUME_OFF = 0.01  # 1; rounding of the cell; of 450 CIFs in the test data of cod-tools two are off by more than 0.001
MAX_LENGTH = 1e5  # Å, of a cell
MAX_NUMBER = 1e9  # of a coordinate or a cell parameter: beyond it nothing is left of the decimals
FORMULA_OFF = 0.05  # of a formula unit; rounding of its numbers
DECIMALS = re.compile(r"[+-]?\d*\.(\d+)(?:\(\d+\))?(?:[eE]([+-]?\d+))?")


def read_cif(text: str) -> Iterator[ase.Atoms | DataError]:
    """What every data block with sites holds: its atoms, or why they cannot be had.

    Raises DataError where the text is no CIF, or none of its blocks has sites.
    """
    try:
        document = gemmi.cif.read_string(_with_own_names(text.removeprefix("\ufeff")))
    except (ValueError, RuntimeError) as error:
        raise DataError(f"it is no valid CIF ({_damaged(text, in_one_line(error))}); repair it") from None
    blocks = [items for items in map(tagged, document) if any(tag.startswith("_atom_site_") for tag in items)]
    blocks = [items for items in blocks if _columns(items)]
    if not blocks:
        raise DataError("it lists no sites of atoms; check that it is the file of a structure")
    for items in blocks:
        yield from read_items(items)


def _with_own_names(text):
    """The text with its blocks numbered where two have one name, which gemmi refuses."""
    names = [name.lower() for name in BLOCK.findall(text)]
    number = itertools.count()
    return BLOCK.sub(lambda _: f"data_{next(number)}", text) if len(set(names)) < len(names) else text


def read_items(items: dict[str, list[str]]) -> Iterator[ase.Atoms | DataError]:
    """The structures of a data block, given as lower-case tag -> values as they are written: one for every model."""
    models = items.get("_atom_site_pdbx_pdb_model_num", [])
    for model in dict.fromkeys(models or [""]):
        rows = [k for k, found in enumerate(models) if found == model] if models else None
        try:
            yield _structure(items, rows)
        except DataError as error:
            yield error


@functools.lru_cache(4096)
def element_of(symbol: str) -> int:
    """Atomic number of an element, which may have a charge behind it; D and T are hydrogen. 0 for what is none."""
    match = re.fullmatch(r"([A-Za-z]{1,2})(?:\d*[+-]|[+-]\d*|\d+)?", symbol)
    name = match[1].capitalize() if match else ""
    return atomic_numbers.get(ISOTOPES.get(name, name), 0)


def tagged(block: gemmi.cif.Block) -> dict[str, list[str]]:
    """Lower-case tag -> raw values of a block of gemmi."""
    found = {}
    for item in block:
        if item.pair is not None:
            found[_plain(item.pair[0])] = [item.pair[1]]
        elif item.loop is not None:
            width = item.loop.width()
            values = item.loop.values
            found.update({_plain(tag): values[k::width] for k, tag in enumerate(item.loop.tags)})
    return found


def _plain(tag):
    return tag.lower().replace(".", "_")


def _columns(items):
    """Tags of the coordinates: parts of the cell vectors, or Å; None where there are none."""
    for kind in ("fract", "cartn"):
        tags = [f"_atom_site_{kind}_{axis}" for axis in "xyz"]
        if all(tag in items for tag in tags):
            return tags
    return None


def _text(items, *tags):
    """The first of single items that is known, "" if none is."""
    tag = next((tag for tag in tags if items.get(tag) and items[tag][0] not in UNKNOWN), None)
    if tag is None:
        return ""
    if len(set(items[tag])) > 1:
        raise DataError(f"{tag} has {len(items[tag])} values; keep one")
    return " ".join(gemmi.cif.as_string(items[tag][0]).split())


def _unquoted(value):
    return gemmi.cif.as_string(value) if value[:1] in ("'", '"', ";") else value


def _numbers(items, tags, what):
    """(len(tags), rows) float64 of columns, all of them known."""
    values = np.array([[gemmi.cif.as_number(value) for value in items[tag]] for tag in tags])
    is_bad = ~(np.abs(values) < MAX_NUMBER)  # NaN too
    if is_bad.any():
        column, row = np.argwhere(is_bad)[0]
        raw = items[tags[column]][row]
        raise DataError(f"{what(row)} are {'unknown' if raw in UNKNOWN else repr(raw[:40])}; give all of them")
    return values


def _structure(items, rows):
    """The atoms of a block, or of the rows of one model. Raises DataError."""
    for tag in ("_cell_modulation_dimension", "_space_group_ssg_name", "_space_group_ssg_name_it"):
        if _text(items, tag) not in ("", "0"):
            raise DataError("it is a modulated structure, whose cell is not all of it; give an approximant")
    if "generate" in map(gemmi.cif.as_string, items.get("_struct_ncs_oper_code", [])):
        raise DataError("it lists operators that are to be applied to its atoms; apply them")
    sites = {tag: values for tag, values in items.items() if tag.startswith("_atom_site_")}
    coordinates = _columns(items)
    n_sites = len(sites[coordinates[0]])
    sites = {tag: [*map(_unquoted, values)] for tag, values in sites.items() if len(values) == n_sites}
    dummies = {k for k, flag in enumerate(sites.get("_atom_site_calc_flag", [])) if flag.lower() == "dum"}
    if rows is not None or dummies:
        rows = [k for k in (range(n_sites) if rows is None else rows) if k not in dummies]
        sites = {tag: [values[k] for k in rows] for tag, values in sites.items()}
        n_sites = len(rows)
    labels = [_label(sites, k) for k in range(n_sites)]
    formula = _formula(_text(items, "_chemical_formula_sum"))
    position = _numbers(sites, coordinates, lambda k: f"the coordinates of {labels[k]}").T
    numbers = np.array([_element(sites, labels, k, formula) for k in range(n_sites)])
    if not len(numbers):
        raise DataError("it lists no atoms; check that it is the file of a structure")
    _check_occupied(sites, labels)
    return _atoms(items, sites, coordinates, numbers, position, formula)


def _label(sites, k):
    """What row k is called."""
    names = sites.get("_atom_site_label") or sites.get("_atom_site_id")
    return names[k] if names else str(k + 1)


def _element(sites, labels, k, formula):
    """Atomic number of row k, by its type or, where it has none, by its label."""
    types = sites.get("_atom_site_type_symbol")
    if types and types[k] not in UNKNOWN:
        symbol = types[k]
        number = element_of(symbol)
    else:
        symbol = labels[k]
        letters = re.match("[A-Za-z]*", symbol)[0][:2]
        is_word = letters[1:].islower()
        names = [letters] if is_word and element_of(letters) else [letters.capitalize(), letters[:1]]
        names = [name for name in dict.fromkeys(names) if element_of(name)]
        if len(names) > 1 or (is_word and names != [letters]):  # CA may be calcium or a carbon; Ow is O, but Wat no W
            names = [name for name in names if element_of(name) in formula]
        number = element_of(names[0]) if len(names) == 1 else 0
    if not number:
        raise DataError(f"the element of the site {labels[k]} is {symbol[:40]!r}, which is none; name its element")
    return number


def _check_occupied(sites, labels):
    """Raise DataError where a site is not that of one atom of one element."""
    for k, value in enumerate(sites.get("_atom_site_occupancy", [])):
        if value == "1":
            continue
        part = 1.0 if value == "." else gemmi.cif.as_number(value)
        if not OCCUPIED <= part <= 2.0 - OCCUPIED:
            raise DataError(f"the site {labels[k]} is occupied by {value} atoms, not by one; give an ordered structure")
    for tag in ("_atom_site_label_alt_id", "_atom_site_auth_alt_id"):
        alternative = next((k for k, value in enumerate(sites.get(tag, [])) if value not in UNKNOWN), None)
        if alternative is not None:
            raise DataError(f"the atom {labels[alternative]} has alternate locations; keep one of them")
    groups = {}
    assemblies = sites.get("_atom_site_disorder_assembly", len(labels) * ["."])
    for k, group in enumerate(sites.get("_atom_site_disorder_group", [])):
        if group not in UNKNOWN:
            groups.setdefault(assemblies[k], set()).add(group)
            if len(groups[assemblies[k]]) > 1 or group.startswith("-"):
                raise DataError(f"the site {labels[k]} is one of several alternatives of disorder; keep one group")
    for k, count in enumerate(sites.get("_atom_site_attached_hydrogens", [])):
        if count not in ("0", *UNKNOWN):
            raise DataError(f"{count} hydrogen atoms at {labels[k]} have no coordinates; add them")


def _atoms(items, sites, coordinates, numbers, position, formula):
    """ase.Atoms of sites that are sound each for itself: cell, symmetry, composition."""
    is_cartesian = "cartn" in coordinates[0]
    parameters = [_text(items, tag) for tag in CELL]
    if is_cartesian and (not any(parameters) or {float(gemmi.cif.as_number(p)) for p in parameters[:3]} <= {0.0, 1.0}):
        return ase.Atoms(numbers, position)  # no cell, or the dummy of 1 Å
    if not all(parameters):
        raise DataError("has no cell, or not all of its lengths and angles; give them")
    parameters = _numbers({tag: [text] for tag, text in zip(CELL, parameters)}, CELL, lambda _: "cell parameters")[:, 0]
    is_cell = (parameters > 0).all() and (parameters[:3] < MAX_LENGTH).all() and (parameters[3:] < 180).all()
    cell = cellpar_to_cell(parameters) if is_cell else np.zeros((3, 3))
    if not np.linalg.det(cell) > 0:  # NaN neither
        raise DataError(f"the cell {parameters.tolist()} is none; correct its lengths and angles")
    volume, wanted = np.linalg.det(cell), gemmi.cif.as_number(_text(items, "_cell_volume"))
    if wanted > 0 and abs(volume - wanted) > VOLUME_OFF * wanted:
        raise DataError(f"its cell has {volume:.6g} Å^3, the file says {wanted:.6g}; correct one of them")
    if is_cartesian:
        _check_frame(items, cell)
        position = np.linalg.solve(cell.T, position.T).T
    unit = np.zeros_like(position)
    if not is_cartesian:
        unit = np.array([[_last_decimal(text) for text in sites[tag]] for tag in coordinates]).T
    number_of_units = gemmi.cif.as_number(_text(items, "_cell_formula_units_z"))
    number_of_units = number_of_units if abs(number_of_units) < 1e9 else math.nan

    def made(operations):
        x, source = symmetry.expand(position, unit, operations, cell)
        return Counter(numbers[source].tolist()), x, source

    def is_composition(counts):
        return _is_composition(counts, formula, number_of_units)

    found = [(operations, *made(operations)) for operations in _operations(items, cell)]
    fitting = [option for option in found if is_composition(option[1])]
    if not fitting:
        made_of = ase.Atoms(numbers[found[0][3]]).get_chemical_formula()
        said = f"{_text(items, '_chemical_formula_sum')} with Z = {_text(items, '_cell_formula_units_z') or '?'}"
        raise DataError(f"its sites make {made_of} in a cell, its formula is {said}; correct one of them")
    if len(fitting) > 1:
        raise DataError(
            f"the space group {_text(items, *SYMBOL) or _text(items, *NUMBER)} has several settings, and the file does "
            "not say which; list the operations of symmetry"
        )
    ((operations, _, x, source),) = fitting
    _check_named(
        items,
        operations,
        cell,
        lambda settings: bool(formula) and not any(is_composition(made(named)[0]) for named in settings),
    )
    _check_multiplicity(sites, source, operations)
    return ase.Atoms(numbers[source], x @ cell, cell=cell, pbc=True)


def _operations(items, cell):
    """The Operations that the block may mean: those that it lists, else those of its space group."""
    listed = _listed(items)
    if listed:
        operations = symmetry.listed_operations(listed)
        if not symmetry.fits(operations, cell):
            raise DataError("the cell does not have the symmetry of the operations listed; correct one of them")
        return [operations]
    return symmetry.named_operations(_text(items, *HALL), _text(items, *SYMBOL), _group_number(items), cell)


def _listed(items):
    """The operations that a block lists, as text; those of a magnetic one times its centring."""
    for tag in LISTED:
        listed = [gemmi.cif.as_string(value) for value in items.get(tag, []) if value not in UNKNOWN]
        if listed and tag == LISTED[2] and items.get(CENTRED):
            raise DataError("its magnetic operations are listed apart from their centring; list all of them")
        if listed:
            return tuple(listed)
    return ()


def _check_named(items, operations, cell, is_ruled_out):
    """Raise DataError where operations listed, or of a Hall symbol, are not those of the group named.

    A name that the formula contradicts (`is_ruled_out` of its operations) is that of another crystal, and one that the
    cell contradicts may be.
    """
    hall = _text(items, *HALL)
    groups = symmetry.groups_of(_text(items, *SYMBOL), _group_number(items))
    if not groups or not (_listed(items) or hall):
        return
    settings = symmetry.fitting(groups, cell)
    is_possible = not settings and len(operations.point_group) == len({str(op.rot) for op in groups[0].operations()})
    if is_possible or any(symmetry.is_same(operations, named) for named in settings) or is_ruled_out(settings):
        return
    given = "the operations that it lists are" if _listed(items) else f"the Hall symbol {hall} is"
    raise DataError(f"{given} not of its space group {groups[0].xhm()}; correct one of them")


def _check_multiplicity(sites, source, operations):
    """Raise DataError where a site has another number of images than its row says."""
    values = sites.get("_atom_site_site_symmetry_multiplicity") or sites.get("_atom_site_symmetry_multiplicity") or []
    said = np.array([gemmi.cif.as_number(value) for value in values])
    if not len(said) or not np.isfinite(said).all():
        return
    found = np.bincount(source, minlength=len(said))
    n_operations = len(operations.rotation)
    # Of the cell or of a primitive one; SHELXL-97 wrote the order of the site symmetry there.
    meant = [found, found * len(operations.point_group) / n_operations, n_operations / found]
    off = [np.flatnonzero(said != numbers) for numbers in meant]
    if all(map(len, off)):
        k = off[0][0]
        raise DataError(
            f"the site {_label(sites, k)} has {found[k]} images, its multiplicity is {said[k]:g}; correct one of them"
        )


def _group_number(items):
    text = _text(items, *NUMBER)
    if re.fullmatch(r"\d{1,3}", text) and 1 <= int(text) <= 230:
        return int(text)
    if text and not (_listed(items) or _text(items, *HALL) or _text(items, *SYMBOL)):
        raise DataError(f"the number of its space group is {text[:40]!r}; write one of 1 to 230, or ? if unknown")
    return None


def _check_frame(items, cell):
    """Raise DataError where Cartesian coordinates stand in a frame of their own."""
    tags = [f"_atom_sites_fract_transf_matrix[{i}][{j}]" for i in (1, 2, 3) for j in (1, 2, 3)]
    matrix = [gemmi.cif.as_number(_text(items, tag)) for tag in tags]
    if np.isfinite(matrix).all():
        off = np.reshape(matrix, (3, 3)) @ cell.T - np.eye(3)
        if np.abs(off).max() > 0.01:
            raise DataError("its Cartesian axes are not along the cell as usual; write fractional coordinates")


def _last_decimal(text):
    """What one in the last decimal of a coordinate is worth; 0 for fewer than two decimals, which are exact."""
    match = DECIMALS.fullmatch(text)
    if not match or len(match[1]) < 2:
        return 0.0
    return 10.0 ** (int(match[2] or 0) - len(match[1]))


def _formula(text):
    """Atomic number -> count of a formula such as `C6 H12 O6`; empty where it is none."""
    parts = re.findall(r"([A-Z][a-z]?)([0-9]{0,9}\.?[0-9]{0,9})", text)
    if not parts or "".join(symbol + count for symbol, count in parts) != re.sub(r"[\s,]", "", text):
        return {}
    counts = Counter()
    for symbol, count in parts:
        if not element_of(symbol):
            return {}
        counts[element_of(symbol)] += float(count or 1)
    return counts


def _is_composition(found, formula, units):
    """Whether counts of atoms are a formula times `units` (NaN where unknown), or the formula of the whole cell."""
    if not formula:
        return True
    if found.keys() != {number for number, count in formula.items() if count}:
        return False
    ratio = found.total() / sum(formula.values())
    counts = [round(count) for count in formula.values()]
    is_whole_cell = abs(ratio - 1) < 1e-6 and np.gcd.reduce(counts) % max(round(units), 1) == 0 if units > 0 else False
    if units > 0 and not is_whole_cell and abs(ratio - units) > FORMULA_OFF * units:
        return False
    return all(abs(found[number] - ratio * count) <= FORMULA_OFF * ratio for number, count in formula.items() if count)


def _damaged(text, reason):
    """The reason of the parser, with the first row of a loop that has too many or too few words."""
    match = re.search(r"string:(\d+):.*Wrong number of values", reason)
    if not match:
        return reason.removeprefix("string:")
    lines = text.splitlines()[int(match[1]) - 1 :]
    tags = [line for line in lines[1:] if line.strip()]
    width = next((k for k, line in enumerate(tags) if not line.lstrip().startswith("_")), len(tags))
    for number, line in enumerate(lines, int(match[1])):
        words = re.findall(r"'[^']*'|\"[^\"]*\"|[^\s'\"#]\S*", line.partition(" #")[0])
        if words and not re.match(r"_|loop_", words[0]) and len(words) != width:
            return f"line {number} has {len(words)} values for {width} columns: {line.strip()[:60]!r}"
    return reason.removeprefix("string:")
