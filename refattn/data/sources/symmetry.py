"""Symmetry of a crystal: the operations that a file lists or names, and the atoms that they make of the listed ones.

gemmi knows the space groups and their symbols; what a symbol leaves open is decided by the cell, and returned as
several groups where it does not. Translations count in 24ths of a cell vector, as in gemmi.
"""

import functools
import re
import typing

import gemmi
import numpy as np

from refattn.errors import DataError

UNITS = gemmi.Op.DEN  # of a translation
MAX_SITES = 1_000_000  # in a cell
METRIC = 0.01  # 1; two cell lengths that symmetry makes equal may differ by half of it
NEAR = 1e-3  # Å; a site this close to a special position is on it
ROUNDED = 0.7  # of the last decimal: 2/3 cut to 0.666 is off by 0.67 of it, a position that is no other by 1
COARSE = 0.05  # Å; a rounding error is not larger than this
# A setting as crystallographers write it, in the order of gemmi's names for it.
ORIGIN = re.compile(r"(?i)\s*(?::\s*|\(?\s*origin\s*(?:choice)?\s*|\s+O\s*)([12])\s*\)?$")
AXES = re.compile(r"(?i)^(R.*?)\s*[-:(]?\s*(hex\w*|rhomb\w*|h|r)(?:\s*(?:axes|setting))?\s*\)?$")
AT_CENTRE = re.compile(r"\s*:?\s*([ZS])$")  # databases: Z for the origin at a centre of symmetry, S for the other


class Operations(typing.NamedTuple):
    """M symmetry operations: x becomes rotation x + translation, in parts of the cell vectors."""

    rotation: np.ndarray  # (M, 3, 3) int64
    translation: np.ndarray  # (M, 3) int64, in 24ths

    def images(self, x: np.ndarray) -> np.ndarray:
        """(M, 3): the images of the position x (3,)."""
        return self.rotation @ x + self.translation / UNITS

    @property
    def point_group(self) -> set[bytes]:
        """The rotations, each once."""
        return {rotation.tobytes() for rotation in self.rotation}


IDENTITY = Operations(np.eye(3, dtype=np.int64)[None], np.zeros((1, 3), np.int64))


@functools.lru_cache(256)
def listed_operations(triplets: tuple[str, ...]) -> Operations:
    """Operations as text, such as `x, y+1/2, -z`. Raises DataError for others, or where some are missing."""
    operations = _arrays(map(_operation, triplets))
    rotation, translation = operations
    products = _codes(
        np.einsum("aij,bjk->abik", rotation, rotation),
        np.einsum("aij,bj->abi", rotation, translation) + translation[:, None],
    )
    codes = _codes(rotation, translation)
    if len(np.unique(codes)) < len(codes):
        raise DataError("an operation of symmetry is listed twice; repair the list")
    if not np.isin(products, codes).all():
        raise DataError(f"its {len(codes)} operations of symmetry are no group, some are missing; complete the list")
    return operations


def named_operations(hall: str, symbol: str, number: int | None, cell: np.ndarray) -> list[Operations]:
    """Operations by a Hall symbol, a Hermann-Mauguin symbol or a number of the International Tables.

    There are several where these and the cell (3, 3), Å, leave the setting open; without any name it is the identity.

    Raises DataError for an unknown symbol, names of two groups, a cell that does not have the symmetry.
    """
    if hall:
        try:
            found = _arrays(gemmi.symops_from_hall(hall))
        except (RuntimeError, ValueError):
            raise DataError(f"the Hall symbol {hall!r} is not known; list the operations of symmetry") from None
        if not fits(found, cell):
            raise DataError(f"the cell does not have the symmetry of the Hall symbol {hall}; correct one of them")
        return [found]
    groups = groups_of(symbol, number)
    if not groups:
        if symbol or number:
            raise DataError(
                f"the space group {symbol or number!r} is not known; list its operations or write its Hall symbol"
            )
        return [IDENTITY]
    name = symbol or str(number)
    if number and groups[0].number != number:
        raise DataError(f"the space group {name} is number {groups[0].number}, the file says {number}; correct one")
    found = fitting(groups, cell)
    if not found:
        raise DataError(f"the cell does not have the symmetry of the space group {name}; correct one of them")
    return found


def fitting(groups: list[gemmi.SpaceGroup], cell: np.ndarray) -> list[Operations]:
    """The operations of those settings of a group that a cell has, of another unique axis where none is of this."""
    found = [operations for operations in map(_of_group, groups) if fits(operations, cell)]
    if not found and 3 <= groups[0].number <= 15:  # a short symbol of another unique axis
        others = [group for group in _table() if _parts(group) == _parts(groups[0])]
        found = [operations for operations in map(_of_group, others) if fits(operations, cell)]
    return found


def is_same(one: Operations, other: Operations) -> bool:
    """Whether two groups are one but for the origin, or half a turn about c, as of a rhombohedral lattice.

    Its hexagonal axes can be put in two ways.
    """
    if np.array_equal(np.unique(_codes(*one)), np.unique(_codes(*other))):
        return True
    return _differ_by_origin(one, other) or _differ_by_origin(one, _turned(other))


def _turned(operations):
    """A group after half a turn about c."""
    turn = np.diag([-1, -1, 1])
    return Operations(turn @ operations.rotation @ turn, operations.translation @ turn % UNITS)


def _differ_by_origin(one, other):
    """Whether a shift of the origin by 24ths of the cell vectors makes a group of the other."""
    if len(one.rotation) != len(other.rotation) or one.point_group != other.point_group:
        return False
    place = UNITS ** np.arange(3)
    is_pure = [(group.rotation == np.eye(3)).all(axis=(1, 2)) for group in (one, other)]
    centring = one.translation[is_pure[0]] @ place
    if set(centring) != set(other.translation[is_pure[1]] @ place):
        return False
    translation = {rotation.tobytes(): shift for rotation, shift in zip(other.rotation, other.translation, strict=True)}
    shift = np.indices((UNITS, UNITS, UNITS)).reshape(3, -1).T
    for rotation, wanted in zip(one.rotation, one.translation, strict=True):
        moved = shift @ (rotation - np.eye(3, dtype=np.int64)).T + translation[rotation.tobytes()] - wanted
        shift = shift[np.isin(moved % UNITS @ place, centring)]
    return len(shift) > 0


@functools.lru_cache(1024)
def groups_of(symbol: str, number: int | None) -> list[gemmi.SpaceGroup]:
    """The settings of a space group that a symbol, or where there is none a number, may mean."""
    if not symbol:
        return [group for group in gemmi.spacegroup_table_itb() if group.number == number]
    text = re.sub(r"\((\d)\)", r"\1", symbol.replace("_", "").strip())  # P2(1)/c
    text = ORIGIN.sub(r":\1", text)
    text = AT_CENTRE.sub(lambda match: ":2" if match[1] == "Z" else ":1", text)
    text = AXES.sub(lambda match: f"{match[1]}:{match[2][0].upper()}", text)
    text = re.sub(r"(\d)-(?=\s|$)", r"-\1", text)  # P 1-
    text = re.sub(r"^([PFI])\s*4\s*3\s*([mncd])$", r"\1 -4 3 \2", text)  # F 43 m
    centring, *parts = text.split() or [""]
    is_open = re.fullmatch("[2346] [1-5]", " ".join(parts)) and parts != ["2", "3"] and centring != "R"
    if is_open and number is None:
        return []  # P 3 2 may be P 32, or P 3 2 1
    names = [text, _short(text)]
    if len(parts) == 1 or re.fullmatch(r"[A-Z](2|m|[abcn]|21)(/[a-z])?", text):  # the unique axis c, as in older files
        centring, part = (centring, parts[0]) if parts else (text[0], text[1:])
        names.append(f"{centring} 1 1 {part}")
    group = next(filter(None, map(gemmi.find_spacegroup_by_name, names)), None)
    if group is None:
        return []
    if re.search(r"(?i):[12]$|[hr]$", text) or text.startswith("H"):
        return [group]
    return [other for other in _table() if other.hm == group.hm]


def fits(operations: Operations, cell: np.ndarray) -> bool:
    """Whether a cell (3, 3) keeps its shape under the rotations."""
    metric = cell @ cell.T
    size = np.sqrt(np.outer(metric.diagonal(), metric.diagonal()))
    turned = np.einsum("mji,jk,mkl->mil", operations.rotation, metric, operations.rotation)
    return bool((np.abs(turned - metric) <= METRIC * size).all())


def expand(
    position: np.ndarray, unit: np.ndarray, operations: Operations, cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All sites of a cell.

    A site whose images lie on it but for rounding is moved onto the special position and counted once.

    Parameters
    ----------
    position : (N, 3)      in parts of the cell vectors
    unit : (N, 3)          what one in the last decimal is worth, 0 where a number is exact
    operations : Operations
    cell : (3, 3)          Å

    Returns
    -------
    position : (M, 3);  source : (M,) int, the listed site of each
    """
    n_sites = len(position)
    n_operations = len(operations.rotation)
    if n_sites * n_operations > MAX_SITES:
        raise DataError(f"has {n_sites} sites and {n_operations} operations of symmetry, too many for one cell")
    if n_operations == 1:
        return position, np.arange(n_sites)
    length = np.sqrt((cell * cell).sum(axis=1))
    off = np.minimum(ROUNDED * unit, COARSE / length) + NEAR / length
    found = [_distinct(operations.images(_special(x, d, operations))) for x, d in zip(position, off, strict=True)]
    return np.concatenate(found), np.repeat(np.arange(n_sites), [len(images) for images in found])


def _special(x, off, operations):
    """The special position within `off` (3,) of x (3,), or x: the mean of the images that lie on x but for rounding."""
    step = operations.images(x) - x
    step -= np.rint(step)
    near = (np.abs(step) <= np.abs(operations.rotation) @ off + off).all(axis=1)
    shift = step[near].mean(axis=0)
    return x + shift if (np.abs(shift) <= off).all() else x


def _distinct(images):
    """Rows of (M, 3) that are no lattice vector apart, within one cell, in their order."""
    images = images - np.floor(images + 1e-9)
    step = images[:, None] - images
    same = (np.abs(step - np.rint(step)) < 1e-6).all(axis=2)
    return images[np.argmax(same, axis=1) == np.arange(len(images))]


def _operation(triplet):
    """gemmi's Op of a text; a magnetic one may have the sign of time behind it."""
    text = re.sub(r",\s*[+-]?1\s*$", "", triplet.lower().replace(" ", ""))
    try:
        if not re.fullmatch(r"[xyz0-9,+\-*/.]+", text):
            raise ValueError
        return gemmi.Op(text)
    except (RuntimeError, ValueError):
        raise DataError(f"{triplet[:40]!r} is no operation of symmetry that can be read; repair it") from None


def _arrays(operations):
    operations = list(operations)
    rotation = np.array([op.rot for op in operations], np.int64)
    if (rotation % UNITS).any() or np.abs(rotation).max() > 3 * UNITS:
        raise DataError("an operation of symmetry has parts of x, y or z; repair it")
    return Operations(rotation // UNITS, np.array([op.tran for op in operations], np.int64) % UNITS)


def _of_group(group):
    return _arrays(group.operations())


def _codes(rotation, translation):
    """A number for every operation, lattice vectors left out."""
    rotation = rotation.reshape(*rotation.shape[:-2], 9)
    if np.abs(rotation).max() > 3:
        raise DataError("its operations of symmetry are no group; repair the list")
    return (rotation + 3) @ 7 ** np.arange(9) * UNITS**3 + translation % UNITS @ UNITS ** np.arange(3)


@functools.cache
def _table():
    return list(gemmi.spacegroup_table())


def _parts(group):
    """What settings of another unique axis have in common."""
    return group.number, sorted(part for part in group.hm.split()[1:] if part != "1"), group.hm[0]


def _short(symbol):
    """The short form of a full Hermann-Mauguin symbol: P 21/m 21/m 2/n is P m m n, I 4/m 2/m 2/m is I 4/m m m."""
    name, colon, setting = symbol.partition(":")
    centring, *parts = name.split() or [""]
    with_mirror = [part for part in parts if "/" in part]
    keep = with_mirror[:1] if with_mirror and with_mirror[0][0] in "46" and "-3" not in parts else []
    parts = [part if part in keep else part.rpartition("/")[2] for part in parts]
    return " ".join([centring, *parts]) + colon + setting if len(with_mirror) > len(keep) else symbol
