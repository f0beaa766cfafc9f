"""The tables of docs/benchmarks.md, each a function of all results that returns lines.

Results are {section: record}; a table whose section is not there is None.
"""

NAMES = {
    "refattn": "**refattn**",
    "tensorflow": "the authors' TensorFlow model",
    "torch-padded": "PyTorch, padded",
    "torch-ragged": "PyTorch, ragged",
    "torch-identities": "PyTorch, ragged, our identities",
    "torch-sharded": "PyTorch, ragged, our identities and shards",
    "jax-ragged": "JAX, ragged",
    "jax-identities": "JAX, ragged, our identities",
}
SHAPES = {"crystal": "periodic crystal", "cluster": "random cluster", "carved": "sphere of a crystal", "rod": "rod"}


def name_of(peer):
    """A peer's name for people."""
    base = peer.removesuffix("-compiled")
    return NAMES.get(base, base) + (", compiled" if base != peer else "")


def grid(head, rows):
    """A table in Markdown: lines."""
    return [
        "| " + " | ".join(head) + " |",
        "| --- |" + " ---: |" * (len(head) - 1),
        *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows),
    ]


def number(value, digits=3):
    """A value with that many significant digits, whole where it has as many before the point; a dash for None."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def machine_line(record):
    """Where a record was measured."""
    facts = record["machine"]
    versions = facts["versions"]
    shown = {"python": "Python", "numpy": "NumPy", "numba": "Numba"}
    packages = [f"{name} {versions[key]}" for key, name in shown.items() if key in versions]
    packages += sorted({row["version"].replace("+cpu", "") for row in record.get("results", []) if row.get("version")})
    cores = f"{facts['cores']} CPU core{'s' * (facts['cores'] > 1)}"
    registers = f", {facts['register_bits']}-bit registers" if "register_bits" in facts else ""
    return f"{cores} ({facts['processor']}{registers}), {', '.join(packages)}"


def step_table(section):
    """A function that makes the table of training steps and inference of one section."""

    def table(results):
        if section not in results:
            return None
        record = results[section]
        threads = sorted({row["threads"] for row in record["results"]})
        rows = {(row["peer"], row["threads"]): row for row in record["results"]}
        head = [f"structures/s, {n} thread{'s' * (n > 1)}" for n in threads]
        lines = [f"{machine_line(record)}; batches of {record['batch_size']}; medians, quartiles in brackets.", ""]
        body = []
        for peer in dict.fromkeys(peer for peer, _ in rows):
            cells = [name_of(peer)]
            for kind in ("step", "predict"):
                cells += [rate_cell(rows.get((peer, n)), kind, record["batch_size"]) for n in threads]
            body.append(cells)
        lines += grid(["", *(f"training: {text}" for text in head), *(f"inference: {text}" for text in head)], body)
        own = [(n, rows["refattn", n]) for n in threads if ("refattn", n) in rows]
        lines += ["", sgemm_sentence(own, record["rates"])]
        return lines

    return table


def rate_cell(row, kind, batch_size):
    if row is None:
        return "-"
    low, high = (batch_size / seconds for seconds in row[kind]["quartiles"])
    return f"{number(row[kind]['structures_per_second'])} ({number(high)}, {number(low)})"


def sgemm_sentence(own, speed):
    """How much of the machine's rate refattn reaches."""
    parts = []
    for n, row in own:
        rate = speed[str(n)]["sgemm_gflops"]
        parts.append(
            f"{n} thread{'s' * (n > 1)}: {row['step']['gflops']:.0f} GFLOP/s in training and "
            f"{row['predict']['gflops']:.0f} in inference, {100 * row['step']['fraction_of_sgemm']:.0f} % and "
            f"{100 * row['predict']['fraction_of_sgemm']:.0f} % of the {rate:.0f} GFLOP/s of matrix products"
        )
    return "refattn, counted with the fewest operations that the mathematics needs; " + "; ".join(parts) + "."


def ratio_table(results):
    """refattn's ratios of both variants."""
    known = [(variant, results[s]) for s, variant in (("step_plus", "scann+"), ("step", "scann")) if s in results]
    known = [(variant, record["ratios"][variant]) for variant, record in known if variant in record["ratios"]]
    if not known:
        return None
    names = list(dict.fromkeys(name for _, found in known for name in found))
    body = []
    for name in names:
        cells = []
        for _, found in known:
            cells.append(ratio_cell(found.get(name)))
        body.append([name, *cells])
    return grid(["times as fast", *(variant.upper() for variant, _ in known)], body)


def ratio_cell(value):
    """A ratio, and against what it was taken where that is not said by its name."""
    if value is None:
        return "-"
    if value["peer"] is None:
        return f"{value['ratio']:.2f}"
    peer, threads = value["peer"].split(", ")
    return f"{value['ratio']:.2f} ({name_of(peer)}, {threads})"


def epoch_table(results):
    if "epoch" not in results:
        return None
    record = results["epoch"]
    body = []
    for row in record["results"]:
        low, high = row["quartiles"]
        how = "" if row["form"] == "epoch" else f", {row['form'].replace('_', ' ')}"
        spread = f"{number(row['median'])} ({number(low)}, {number(high)})"
        speed = number(row["structures_per_second"])
        body.append([row["variant"].upper(), f"{name_of(row['peer'])}{how}", spread, speed, f"{row['ratio']:.2f}"])
    head = ["network", "", f"s for {record['structures']} molecules", "molecules/s", "refattn is x times as fast"]
    line = f"{machine_line(record)}; {record['threads']} threads, batches of {record['batch_size']}."
    return [line, "", *grid(head, body)]


def ops_table(results):
    if "ops" not in results:
        return None
    record = results["ops"]
    body = []
    for row in record["rows"]:
        gflops = None if row["flops"] is None else row["flops"] / row["median"] / 1e9
        microseconds = [number(1e6 * value) for value in (row["median"], *row["quartiles"])]
        cells = [f"{row['operation']} {row['direction']}", f"{microseconds[0]} ({microseconds[1]}, {microseconds[2]})"]
        cells += [number(row["bytes"] / row["median"] / 1e9), number(gflops)]
        body.append([*cells, number(1e6 * row["torch"]) if row["torch"] else "-"])
    speed = record["rates"]["1"]
    line = f"{machine_line(record)}; one thread, {record['sites']} sites and {record['edges']} edges; "
    line += f"matrix products {speed['sgemm_gflops']:.0f} GFLOP/s, copy {speed['copy_gb_per_second']:.1f} GB/s."
    return [line, "", *grid(["", "µs (quartiles)", "GB/s", "GFLOP/s", "PyTorch, eager, µs"], body)]


def structure_table(results):
    """Prediction of ever larger structures, beside the authors' code."""
    if "scaling" not in results:
        return None
    record = results["scaling"]
    theirs = {row["sites"]: row for row in record["authors"]["rows"]}
    body = []
    for row in record["structures"]["rows"]:
        other = theirs.get(row["sites"])
        cells = [f"{row['sites']:,}", number(row["seconds"]), number(row["graph_seconds"]), number(row["peak_mb"])]
        body.append([*cells, *((number(other["seconds"]), number(other["peak_mb"])) if other else ("-", "-"))])
    head = ["atoms", "s", "of which neighbours", "peak, MB", "the authors' network, s", "peak, MB"]
    lines = [f"{machine_line(record)}.", "", *grid(head, body), ""]
    if record["structures"]["exponent"]:
        lines.append(f"refattn's time grows as atoms^{record['structures']['exponent']:.2f}.")
    failed = record["authors"]["failed"]
    if failed and theirs:
        reason = "it runs out of memory" if "OOM" in failed["reason"] else failed["reason"]
        lines.append(
            f"The authors' network (its neighbours given, not timed) ends at {max(theirs):,} atoms; at "
            f"{failed['sites']:,}, within {record['authors']['limit_gib']:g} GiB: {reason}"
        )
    return lines


def growth_table(results):
    """Training steps when one size varies."""
    if "scaling" not in results:
        return None
    body = []
    for what, rows in results["scaling"]["steps"].items():
        for row in rows:
            sizes = [row[key] for key in ("structures", "sites", "edges", "width", "layers", "threads")]
            body.append([what, *sizes, number(1e3 * row["median"]), number(row["gflops"])])
    return grid(["varied", "structures", "sites", "edges", "width", "layers", "threads", "step, ms", "GFLOP/s"], body)


def memory_table(results):
    memory = results.get("scaling", {}).get("memory")
    return memory and grid(["", "peak, MB"], [[name_of(peer), number(peak, 4)] for peer, peak in memory.items()])


def cold_table(results):
    if "cold_start" not in results:
        return None
    record = results["cold_start"]
    body = [[name_of(p), number(row["first"]), number(row["later"])] for p, row in record["first_step"].items()]
    line = f"{machine_line(record)}. `refattn --help` takes {record['help']['median']:.2f} s."
    return [line, "", *grid(["s to the end of the first training step", "first run", "later runs"], body)]


def neighbour_table(results):
    if "neighbours" not in results:
        return None
    record, body = results["neighbours"], []
    for key, what in (("molecules", "QM9"), ("crystals", "crystals")):
        for method in ("pymatgen", "scipy", "upstream", "isolated") if key in record else ():
            row = record[key][method]
            body.append([f"{what}, {method}", number(row["ms"]), number(row["us_per_site"]), number(row["ratio"])])
    lines = grid(["", "ms a structure", "µs a site", "pymatgen is x times slower"], body)
    if "scaling" in record:
        grown = {SHAPES.get(kind, kind): found["isolated"]["exponent"] for kind, found in record["scaling"].items()}
        powers = ", ".join(f"{kind} {exponent:.2f}" for kind, exponent in grown.items())
        lines += ["", f"Time of the `isolated` rule grows as sites to the power: {powers}."]
    return lines


TABLES = {
    "ratios": ratio_table,
    "step_plus": step_table("step_plus"),
    "step": step_table("step"),
    "epoch": epoch_table,
    "ops": ops_table,
    "structures": structure_table,
    "growth": growth_table,
    "memory": memory_table,
    "cold_start": cold_table,
    "neighbours": neighbour_table,
}
