"""The results of benchmarks/gpu.py as Markdown."""


def markdown(record):
    """The text of gpu.md from the dict of gpu.json."""
    lines = [f"# refattn on a GPU: {record['data']}", ""]
    if record["quick"]:
        lines += ["A quick run with small networks: its times say nothing.", ""]
    lines += ["| stage | outcome | s |", "| --- | --- | --- |"]
    for name, stage in record["stages"].items():
        lines.append(f"| {name} | {stage['error'] or 'ok'} | {stage.get('seconds', 0):.1f} |")
    for name, stage in record["stages"].items():
        if stage.get("result"):
            lines += ["", f"## {name}", "", *_section(name, stage["result"], record["stages"])]
    return "\n".join(lines) + "\n"


def _section(name, result, stages):
    if name.startswith("step"):
        return _steps(result["steps"])
    if name == "operations_time":
        return _operations(result["operations"], (stages.get("rates") or {}).get("result") or {})
    if name == "epoch":
        batches = result["batch"].items()
        rows = [(size, f"{x['first_seconds']:.2f}", f"{x['seconds']:.2f}", x["graphs"]) for size, x in batches]
        return [f"{result['molecules']:,} molecules.", "", *table(("batch", "first, s", "next, s", "graphs"), rows)]
    if name == "train":
        names = {"valid_mae": ".5g", "seconds": ".2f", "structures_per_second": ".0f"}
        rows = [(x["epoch"], *(format(x[name], spec) for name, spec in names.items())) for x in result["history"]]
        title = f"valid MAE of {result['label']} ({result['unit'] or 'no unit'})"
        return table(("epoch", title, "s", "structures/s"), rows)
    return [f"- {key}: {_shown(value)}" for key, value in result.items() if key not in ("ok", "error", "differences")]


def table(head, rows):
    """Lines of a table."""
    rows = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def _steps(steps):
    """Milliseconds of a step, and how many times faster refattn in float32 is at the same batch."""
    rows = []
    for name, entry in steps.items():
        size = name.rpartition(", ")[2]
        own = steps.get(f"refattn cuda, {size}", {}).get("seconds")
        if "seconds" in entry:
            ratio = f"{entry['seconds'] / own:.2f}" if own else "-"
            rows.append((name, f"{entry['seconds'] * 1e3:.3f}", ratio))
        else:
            rows.append((name, entry["error"], "-"))
    return table(("network, batch", "ms a step", "times refattn's"), rows) + [""] + _quickest(steps)


def _quickest(steps):
    """A sentence for each batch on the quickest peer; the goal is twice refattn's time at least."""
    found = {}
    for name, entry in steps.items():
        peer, _, size = name.rpartition(", ")
        if "seconds" in entry and not peer.startswith("refattn"):
            found.setdefault(size, []).append((entry["seconds"], peer))
    lines = []
    for size, peers in found.items():
        taken, peer = min(peers, key=lambda pair: pair[0])
        ratio = taken / steps[f"refattn cuda, {size}"]["seconds"]
        lines.append(f"Batch {size}: the quickest of PyTorch is {peer}, {ratio:.2f} times refattn's time.")
    return lines


def _operations(operations, rates):
    """Time and bytes of every operation, and the part of the copy rate that it reaches."""
    copy = rates.get("copy_bytes_per_second")
    rows = [
        (
            name,
            f"{x['seconds'] * 1e6:.1f}",
            f"{x['bytes'] / 1e6:.1f}",
            f"{x['bytes_per_second'] / copy:.2f}" if copy else "-",
        )
        for name, x in operations.items()
    ]
    return table(("operation", "µs", "MB", "of the copy rate"), rows)


def _shown(value):
    return f"{value:.4g}" if isinstance(value, float) else value
