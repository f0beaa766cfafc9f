"""Large data sets mapped into memory: a flat file beside the data set, of which only what is used is read.

All processes of a machine share its pages. The first training writes it; it belongs to the data set by its size, time
and first and last bytes, and is written anew where these have changed. Arrays have the types of read_dataset, so that
no bit depends on how a data set was opened. For a network that reads angles it holds the directions of edges too.
"""

import hashlib
import json
import mmap
import time
from pathlib import Path

import numpy as np

from refattn.common.files import only_process, replacing
from refattn.common.notices import tell
from refattn.data.store import Dataset, check_layout, open_dataset, read_dataset
from refattn.errors import DataError, OutputError
from refattn.structures.batch import GraphBatch, ring_flags

MARK = b"refattn-mapped 2\n"
HEAD = 1 << 16  # bytes for what the file says of itself
ALIGNED = 64  # bytes
BLOCK = 1 << 14  # structures that are written or checked at once
ENDS = 1 << 20  # bytes at the beginning and the end of a data set that are looked at
EDGE_FLOATS = {"r": (), "omega": (), "weight": ()}  # name -> shape of an edge
DIRECTIONS = {"direction": (3,), "species": ()}


def open_mapped(path: Path | str, with_directions: bool = False) -> Dataset:
    """The Dataset of a file, without positions and cells, in arrays that are mapped and read-only.

    with_directions : bool    with those of Dataset.with_directions

    Raises DataError as read_dataset and Dataset.with_directions do, and for a flat file that is damaged, OutputError
    where it cannot be written.
    """
    path = Path(path)
    edges = EDGE_FLOATS | (DIRECTIONS if with_directions else {})
    flat = path.with_name(path.name + ".mapped")
    with open_dataset(path) as file:
        check_layout(file)
    key = _key_of(path)
    while not _serves(flat, key, edges):
        try:
            with only_process(flat):
                if not _serves(flat, key, edges):
                    tell(f"writing {flat}, once for this data set, to train in bounded memory")
                    _write(path, flat, key, edges)
        except OutputError as error:
            if "another process" not in str(error):
                raise
            time.sleep(1)  # that one writes it for this one too
    arrays = _map(flat)
    first = read_dataset(path, slice(0, 1), with_positions=False)
    graphs = GraphBatch(
        **{name: arrays[name] for name in ("site_ptr", "edge_ptr", "nbr", "z", *edges)},
        structure=np.arange(len(arrays["id"])),
        ring=ring_flags({"ring": arrays["arrays/ring"]} if "arrays/ring" in arrays else {}),
    )
    _check(graphs, flat)
    groups = {
        group: {name: arrays[f"{group}/{name}"] for name in names}
        for group, names in (("labels", first.labels), ("arrays", first.arrays))
    }
    return Dataset(graphs, arrays["id"], None, None, arrays["pbc"], label_attrs=first.label_attrs,
                   graph_config=first.graph_config, attrs=first.attrs, skipped=first.skipped, **groups)  # fmt: skip


def _serves(flat, key, edges):
    """Whether a flat file is there, belongs to the data set and has the arrays of edges."""
    head = _head_of(flat)
    return head.get("key") == key and edges.keys() <= {*(head.get("arrays") or ())}


def _key_of(path):
    """What the flat file of a data set is known by."""
    facts = path.stat()
    digest = hashlib.sha256(f"{facts.st_size} {facts.st_mtime_ns}".encode())
    with open(path, "rb") as stream:
        digest.update(stream.read(ENDS))
        stream.seek(max(facts.st_size - ENDS, 0))
        digest.update(stream.read(ENDS))
    return digest.hexdigest()


def _head_of(flat):
    """What a flat file says of itself; nothing where there is none."""
    try:
        with open(flat, "rb") as stream:
            return _parse(stream.read(HEAD))
    except FileNotFoundError:
        return {}


def _parse(head):
    """What the first bytes of a flat file say; nothing where they are others."""
    try:
        found = json.loads(head.removeprefix(MARK)) if head.startswith(MARK) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write(path, flat, key, edges):
    """Write the flat file of a data set with arrays of `edges`, a block of structures at a time."""
    with open_dataset(path) as file:
        n = {"structure": check_layout(file), "site": len(file["structures/z"]), "edge": len(file["graph/nbr"])}
        ids = file["structures/id"][()]
        inner = {name: values.shape[1:] for name, values in file["arrays"].items()}
        labels = list(file["labels"])
    if len(np.unique(ids)) < len(ids):
        raise DataError(f"{path}: an id occurs twice; ids must be unique")
    shapes = {"site_ptr": ("<i8", (n["structure"] + 1,)), "edge_ptr": ("<i8", (n["site"] + 1,))}
    shapes |= {"nbr": ("<i4", (n["edge"],)), "z": ("<i4", (n["site"],))}
    shapes |= {name: ("<f8", (n["edge"], *shape)) for name, shape in edges.items()}
    shapes |= {"pbc": ("?", (n["structure"], 3)), "id": (f"<U{ids.dtype.itemsize}", (n["structure"],))}
    shapes |= {f"labels/{name}": ("<f8", (n["structure"],)) for name in labels}
    shapes |= {f"arrays/{name}": ("<f8", (n["site"], *shape)) for name, shape in inner.items()}
    arrays = {}
    end = HEAD
    for name, (dtype, shape) in shapes.items():
        arrays[name] = {"dtype": dtype, "shape": shape, "offset": end}
        end += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // ALIGNED) * ALIGNED
    head = MARK + json.dumps({"key": key, "bytes": end, "arrays": arrays}).encode()
    if len(head) > HEAD:
        raise DataError(f"{path}: has too many labels and arrays to be mapped; leave some out")
    with replacing(flat) as part, open(part, "rb+") as stream:
        stream.write(head.ljust(HEAD))
        stream.truncate(end)
        _write_arrays(path, stream, arrays, n["structure"], edges)


def _write_arrays(path, stream, arrays, n_structures, edges):
    def put(name, first, values):
        """Rows of an array from `first` on."""
        known = arrays[name]
        values = np.ascontiguousarray(values, known["dtype"])
        row = values.itemsize * int(np.prod(values.shape[1:]))
        stream.seek(known["offset"] + first * row)
        stream.write(values)

    n_sites = n_edges = 0
    put("site_ptr", 0, [0])
    put("edge_ptr", 0, [0])
    for start in range(0, n_structures, BLOCK):
        block = read_dataset(path, slice(start, start + BLOCK), False, with_directions="direction" in edges)
        graphs = block.graphs
        put("site_ptr", start + 1, n_sites + graphs.site_ptr[1:])
        put("edge_ptr", n_sites + 1, n_edges + graphs.edge_ptr[1:])
        put("nbr", n_edges, n_sites + graphs.nbr)
        put("z", n_sites, graphs.z)
        for name in edges:
            put(name, n_edges, getattr(graphs, name))
        put("id", start, block.id)
        put("pbc", start, block.pbc)
        for name, values in block.labels.items():
            put(f"labels/{name}", start, values)
        for name, values in block.arrays.items():
            put(f"arrays/{name}", n_sites, values)
        n_sites += len(graphs.z)
        n_edges += len(graphs.nbr)


def _map(flat):
    """name -> array. Raises DataError for a file that was cut."""
    with open(flat, "rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):  # structures are drawn at random: the system need not read what follows them
        content.madvise(mmap.MADV_RANDOM)
    head = _parse(content[:HEAD])  # of the file that is mapped: another process may put a new one in its place
    try:
        if len(content) != head["bytes"]:
            raise ValueError("it was cut")
        found = {}
        for name, known in head["arrays"].items():
            dtype = np.dtype(known["dtype"])
            count = int(np.prod(known["shape"]))
            found[name] = np.frombuffer(content, dtype, count, known["offset"]).reshape(known["shape"])
        return found
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DataError(f"{flat}: is damaged ({error}); remove it, it is made again") from None


def _check(graphs, flat):
    """Nothing may point outside: compiled kernels follow these numbers without a check of their own."""
    site_ptr, edge_ptr = graphs.site_ptr, graphs.edge_ptr
    fits = site_ptr[0] == edge_ptr[0] == 0 and site_ptr[-1] == len(graphs.z) and edge_ptr[-1] == len(graphs.nbr)
    fits = fits and bool(np.all(np.diff(site_ptr) > 0))
    for start in range(0, len(graphs) if fits else 0, BLOCK):
        sites = site_ptr[start : start + BLOCK + 1]
        edges = edge_ptr[sites[0] : sites[-1] + 1]
        if not (np.all(np.diff(edges) >= 0) and edges[0] >= 0 and edges[-1] <= len(graphs.nbr)):
            fits = False
            break
        nbr = graphs.nbr[edges[0] : edges[-1]]
        n_edges = np.diff(edge_ptr[sites])
        first, last = (np.repeat(ends, n_edges) for ends in (sites[:-1], sites[1:]))
        z = graphs.z[sites[0] : sites[-1]]
        fits = fits and bool(np.all((first <= nbr) & (nbr < last)) and np.all((z > 0) & (z < 119)))
    if not fits:
        raise DataError(f"{flat}: is damaged (it leads outside of itself); remove it, it is made again")
