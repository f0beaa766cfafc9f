"""How many times as fast refattn is as its peers: the comparisons that the project promises."""

AUTHORS, OWN = "tensorflow", "refattn"


def ratios(rows):
    """Ratios of medians for one variant; a comparison whose peer was not measured is left out.

    Parameters
    ----------
    rows : list of dict     of driver.row_view

    Returns
    -------
    dict name -> {"ratio": peer's time over refattn's, "peer": what stands against it, or None}
    """
    times = {}
    for row in rows:
        for form, values in row["forms"].items():
            times[row["peer"], row["threads"], form] = values["median"]
        for kind in ("step", "predict"):
            times[row["peer"], row["threads"], kind] = row[kind]["median"]
    max_threads = max((row["threads"] for row in rows if row["peer"] == OWN), default=0)
    others = sorted({row["peer"] for row in rows} - {OWN, AUTHORS})
    every = sorted({row["threads"] for row in rows})
    found = {}

    def add(name, ours, candidates):
        """`ours` against the fastest of the candidates that were measured."""
        known = [key for key in candidates if key in times]
        if ours in times and known:
            best = min(known, key=times.get)
            label = None if best[0] == OWN else f"{best[0]}, {best[1]} thread{'s' * (best[1] > 1)}"
            found[name] = {"ratio": times[best] / times[ours], "peer": label}

    for kind, word in (("step", "training step"), ("predict", "inference")):
        own = OWN, max_threads, kind
        alone = OWN, 1, kind
        name = f"{word}, {max_threads} thread{'s' * (max_threads > 1)}"
        if kind == "step":
            add(f"{name}, against the authors'", own, [(AUTHORS, max_threads, "step")])
        else:
            add(f"{name}, against the authors' compiled call", own, [(AUTHORS, max_threads, "call")])
            add(f"{name}, against the authors' predict", own, [(AUTHORS, max_threads, "model_predict")])
        add(f"{name}, against the best framework", own, [(p, t, kind) for p in others for t in every])
        if max_threads > 1:
            add(f"{word}, 1 thread, against the best framework's 1 thread", alone, [(p, 1, kind) for p in others])
            add(f"{name} over 1 thread", own, [alone])
    return found
