"""A folder of structure files that others made, through `refattn prepare`, each in a process of its own.

    python tools/corpus.py FOLDER [--json OUT]

What may not happen is counted: tracebacks, signals, more than 20 s of a processor, more than 3 GB. Every CIF that is
taken is compared with gemmi's reading of it: the elements and how many atoms each has. Of those that gemmi reads and
refattn refuses the reasons are counted by kind. The files themselves are not part of refattn;
benchmarks/results/corpus.json is of the test data of cod-tools, Open Babel, gemmi, chemfiles and ASE.
"""

import argparse
import collections
import json
import os
import re
import resource
import signal
import tempfile
import traceback
from pathlib import Path

import gemmi
from ase.build import bulk, molecule
from ase.formula import Formula

from refattn.common.files import write_text
from refattn.common.strict_json import to_json
from refattn.config import GraphConfig
from refattn.data.prepare import prepare
from refattn.data.sources.files import STRUCTURE_FILE
from refattn.data.sources.registry import open_source
from refattn.data.store import read_dataset
from refattn.errors import RefattnError
from refattn.structures.batch import GraphBatch

SECONDS = 20
MEMORY = 3 << 30  # bytes
NO_ELEMENT = "X"  # gemmi's X, where the type of a site is not one that it knows
# Why a CIF that gemmi reads is refused, by what the sentence has.
KINDS = {
    "partial or mixed occupancy": "is occupied by",
    "alternatives of disorder": "alternatives of disorder|alternate locations",
    "sites and formula differ": "its sites make",
    "hydrogen atoms without coordinates": "hydrogen atoms at",
    "coordinates unknown, or no numbers": "the coordinates of|cell parameters are",
    "no coordinates": "lists no sites|lists no atoms",
    "no cell": "has no cell|the cell .* is none",
    "a label or type that is no element": "the element of the site",
    "operations that are no group, or not of the cell": "operation|symmetry",
    "a group unknown or contradicted": "the space group|rotations",
    "a modulated structure": "modulated",
    "atoms too near": "apart|coincide",
    "operators still to be applied, axes of its own": "apply them|Cartesian axes",
}


def outcome_of(path, out):
    """What prepare makes of a file: a dict for JSON."""
    try:
        report = prepare(open_source(path), out, GraphConfig(r_max=6.0))
    except RefattnError as error:
        sentence = str(error)
        found = {"outcome": "refused" if "\n" not in sentence else "lines", "reason": sentence}
        return {**found, "by_gemmi": len(blocks_of(path))} if path.suffix.lower() == ".cif" else found
    dataset = read_dataset(out)
    atoms = [dataset.atoms(row) for row in range(len(dataset))]
    found = {"outcome": "taken", "structures": report.n_structures, "left_out": report.n_skipped}
    if path.suffix.lower() == ".cif":
        found["by_gemmi"] = len(blocks_of(path))
        if not report.n_skipped:
            found["differs"] = [str(Formula.from_dict(one)) for one in differences(blocks_of(path), atoms)]
    return found


def blocks_of(path):
    """The data blocks with sites as gemmi reads them; none of a file that it refuses."""
    try:
        blocks = [gemmi.make_small_structure_from_block(block) for block in gemmi.cif.read(str(path))]
    except (RuntimeError, ValueError):
        return []
    return [block for block in blocks if block.sites]


def differences(blocks, atoms):
    """Compositions by gemmi that are not those taken, of blocks whose elements gemmi knows."""
    if len(blocks) != len(atoms):  # mmCIF, models
        return
    for block, one in zip(blocks, atoms, strict=True):
        by_gemmi = collections.Counter(site.element.name for site in block.get_all_unit_cell_sites())
        by_gemmi["H"] += by_gemmi.pop("D", 0)
        if NO_ELEMENT not in by_gemmi and +by_gemmi != collections.Counter(one.symbols):
            yield by_gemmi


def in_a_process(path, folder):
    """outcome_of in a child with limits; "signal", "hang" or "traceback" where that does not end well."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(10 * SECONDS)  # where it waits
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            text = to_json(outcome_of(path, Path(folder) / "out.h5"))
        except BaseException:
            text = to_json({"outcome": "traceback", "reason": traceback.format_exc()})
        os.write(write, text.encode()[: 1 << 16])
        os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as stream:
        text = stream.read()
    _, status, usage = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        name = "hang" if os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGALRM) else "signal"
        found = {"outcome": name, "reason": f"signal {os.WTERMSIG(status)}"}
    else:
        found = json.loads(text)
    return {**found, "seconds": usage.ru_utime + usage.ru_stime, "mb": usage.ru_maxrss / 1024}


def main() -> None:
    """Run over a folder and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, help="write the counts to this file too")
    arguments = parser.parse_args()
    for atoms in (molecule("H2O"), bulk("NaCl", "rocksalt", 5.6)):
        GraphBatch.from_atoms(atoms)  # children begin with compiled kernels
    files = [path for path in sorted(arguments.folder.rglob("*")) if STRUCTURE_FILE.fullmatch(path.name)]
    files = [path for path in files if path.is_file()]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            found[str(path.relative_to(arguments.folder))] = in_a_process(path, folder)
    text = to_json(summary(found), indent=1)
    print(text)
    if arguments.json:
        write_text(arguments.json, text)


def summary(found):
    """Counts of what became of the files, the longest and the largest of them, and where gemmi reads otherwise."""
    taken = [one for one in found.values() if one["outcome"] == "taken"]
    slowest = max(found, key=lambda name: found[name]["seconds"])
    bad = {name: one["reason"][-300:] for name, one in found.items() if one["outcome"] not in ("taken", "refused")}
    return {
        "files": len(found),
        "outcomes": collections.Counter(one["outcome"] for one in found.values()),
        "structures": sum(one["structures"] for one in taken),
        "left_out_beside_them": sum(one["left_out"] for one in taken),
        "longest": {"file": slowest, "seconds": round(found[slowest]["seconds"], 1)},
        "most_memory_mb": round(max(one["mb"] for one in found.values())),
        "cifs_compared_with_gemmi": sum("differs" in one for one in taken),
        "cifs_that_gemmi_reads": sum(bool(one.get("by_gemmi")) for one in found.values()),
        "and_refattn_refuses": refused_cifs(found),
        "gemmi_reads_otherwise": {name: one["differs"] for name, one in found.items() if one.get("differs")},
        "not_as_it_should_be": bad,
        "reasons": dict(reasons(found).most_common(40)),
    }


def refused_cifs(found):
    """How many CIFs that gemmi reads are refused for which kind of reason."""
    counts = collections.Counter()
    for name, one in found.items():
        if one["outcome"] == "refused" and one.get("by_gemmi"):
            text = reason_of(name, one)
            counts[next((kind for kind, pattern in KINDS.items() if re.search(pattern, text)), text)] += 1
    return {"files": counts.total(), **dict(counts.most_common())}


def reason_of(name, one):
    """Why a file was refused, without its path."""
    text = one["reason"].partition("because: ")[2] or one["reason"]
    return re.sub(r"^\S*" + re.escape(Path(name).name) + r"(, frame \d+)?( \(line \d+\))?: ", "", text)


def reasons(found):
    """How many files were refused for which reason, names and numbers left out."""
    counts = collections.Counter()
    for name, one in found.items():
        if one["outcome"] == "refused":
            text = re.sub(r"'[^']*'|\b[A-Z][\w*+()'-]*\d[\w*+()'-]*|[\d.]+(\(\d+\))?", "#", reason_of(name, one))
            counts[text[:60]] += 1
    return counts


if __name__ == "__main__":
    main()
