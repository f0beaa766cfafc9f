"""Is taught attention to be believed? `refattn explain --validate` of several seeds, and its numbers as tables.

    refattn train qm9_orbitals --data qm9_orbitals.h5 --epochs 10 --set training.seed=K --out RUN_K     for K = 0 to 4
    python benchmarks/validate_attention.py RUN_0 RUN_1 RUN_2 RUN_3 RUN_4 --name qm9_taught

The runs differ in their seed only, and have one split. They are validated together, as the members of an ensemble, on a
sample of their test set. The report is NAME.html and NAME.json in --out; what is printed goes into
docs/explanations.md.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "validation"
SITES = {"all": "all sites", "without_hydrogen": "without hydrogen"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--name", required=True, help="Of the report.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--sample", type=int, default=1000)
    parser.add_argument("--costly", type=int, default=100)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = validate(Path(folder), arguments)
        record = json.loads((report / "validation.json").read_text(encoding="utf-8"))
        arguments.out.mkdir(parents=True, exist_ok=True)
        for suffix in ("html", "json"):
            shutil.copy(report / f"validation.{suffix}", arguments.out / f"{arguments.name}.{suffix}")
    print(tables(record))


def validate(folder, arguments):
    """The folder of the report of all runs; `folder` takes links to them."""
    ensemble = folder / "runs"
    ensemble.mkdir()
    for number, run in enumerate(arguments.runs):
        (ensemble / f"member_{number}").symlink_to(run.resolve(), target_is_directory=True)
    command = [Path(sys.executable).parent / "refattn", "explain", "runs", "--validate", "--out", "report"]
    command += ["--sample", arguments.sample, "--costly", arguments.costly]
    command += ["--threads", arguments.threads] if arguments.threads else []
    subprocess.run([str(part) for part in command], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return folder / "report"


def tables(record):
    """The numbers of every target as text: agreement with its orbital, deletion and insertion, seeds."""
    each = record.get("targets") or {record["target"]: record}
    return "\n\n".join("\n".join(lines(target, own)) for target, own in each.items())


def lines(target, record):
    """Lines of Markdown of one target."""
    runs = f"{record['n_runs']} runs, {record['n_structures']} structures"
    yield f"{target}, MAE {', '.join(f'{mae:.4g}' for mae in record['mae'])} {record['unit']}, {runs}"
    orbital = next((name for name in record["agreement"] if name.split("_")[0] in target.lower()), None)
    names = ["element", "untrained_beta", *record["titles"]]
    if orbital:
        yield from table(
            ["rank correlation with the orbital", *SITES.values(), "first three, without hydrogen"],
            {n: agreement_cells(record["agreement"][orbital], n) for n in names},
        )
    yield from table(
        ["change of the prediction, times that of random orders", "deleted first", "alone kept"],
        {n: [row[kind]["over_random"] for kind in ("deletion", "insertion")]
         for n, row in record["faithfulness"].items() if n != "random"},
    )  # fmt: skip
    if record["stability"]:
        yield from table(
            ["rank correlation between two runs", *(SITES[which] for which in record["stability"])],
            {n: [rows[n]["spearman"]["mean"] for rows in record["stability"].values()] for n in record["titles"]
             if n in next(iter(record["stability"].values()))},
        )  # fmt: skip


def agreement_cells(by_sites, name):
    """Mean rank correlations for both choices of sites, and the overlap of the first three without hydrogen."""
    found = [by_sites.get(which, {}).get(name) for which in SITES]
    means = [row and row["spearman"]["mean"] for row in found]
    return [*means, found[-1] and found[-1]["top_overlap"]["mean"]]


def table(heads, rows):
    """Lines of a table; rows without any number are left out."""
    yield ""
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for name, numbers in rows.items():
        if any(number is not None for number in numbers):
            yield f"| {name} | {' | '.join('-' if x is None else f'{x:.2f}' for x in numbers)} |"


if __name__ == "__main__":
    main()
