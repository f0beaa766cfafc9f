"""refattn's recipe, and the authors' SCANN+ with the options that they publish; runs in refattn's own environment.

Both are experiments that ship, with the changes below. Their rate falls over a number of epochs, which is chosen for
the budget: two epochs over a few structures say how long one takes (not counted, nor is compilation). Where the budget
does not hold two epochs, fewer structures are trained on, `n_used` of the result. The warm restarts of the authors,
after 50, 150, ... epochs, become one period over the budget. Where the order has `epochs`, so many are done, whatever
they take. Where it has `keep`, that folder holds the run, and an interrupted one goes on. Where it has `rounds`,
nothing is learned: the result says what a structure takes without the changes of the order and with them, in so many
turns; what is in its `base` is changed in both.
"""

import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path

import common

import refattn
from refattn.common.files import write_text
from refattn.common.threads import workers
from refattn.config import override
from refattn.data.splits import read_split, resolve_split, write_split
from refattn.experiments import load_experiment
from refattn.network.checkpoint import load_checkpoint
from refattn.network.evaluate import predict_labels
from refattn.training.train import Interrupted, Trainer

order = common.read_order()

# (method, set) -> experiment and what is changed
SETTINGS = {
    ("refattn", "qm9_gap"): ("molecules_b3lyp", ()),
    ("refattn", "mp_e_form"): ("crystals", ()),
    ("refattn", "fullerene_homo"): ("fullerene_homo", ()),
    ("refattn", "fullerene_energy"): ("builtin_fullerene", ()),
    ("refattn", "pt_graphene"): ("builtin_pt_graphene", ()),
    ("scann+", "qm9_gap"): ("qm9", ()),
    ("scann+", "mp_e_form"): ("materials_project", ("model.n_elements=119",)),  # plutonium and what follows
    ("scann+", "fullerene_homo"): ("fullerene", ()),
}
PROBED = 24  # batches of an epoch that says how long one takes
TIMED = 320  # structures of one, where two settings are compared
FEW = 50  # structures that are validated on there
SPARE = 0.94  # of the budget, for what the estimate misses


def settings(path, target, split, epochs, more):
    """The Config of a training on the structures of a Split file, with `more` changes."""
    experiment, changes = SETTINGS[order["method"], order["set"]]
    config = override(load_experiment(experiment), (*changes, *more))
    data = {"path": str(path), "target": target, "split": str(split), "split_by": "file"}
    data |= {"n_train": 0, "n_valid": 0, "n_test": 0, "target_weight": ()}
    training = {"epochs": epochs, "sgdr_period": epochs, "seed": order["seed"], "patience": epochs}
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, **data),
        training=dataclasses.replace(config.training, **training),
    )


def train(config, folder, budget):
    """Train in `folder` until the budget ends: the Trainer, its Clock, (batch, None after an epoch; seconds).

    Where a training was interrupted there, it goes on, and so does its Clock.
    """
    folder.mkdir(exist_ok=True)
    resumed, used = (folder / "last.h5").exists(), folder / "used.json"
    trainer = Trainer.resume(folder, "cpu") if resumed else Trainer.start(config, folder, None, "cpu")
    trainer.write_settings(resumed)
    clock, marks = common.Clock(budget), []
    if resumed:
        before = json.loads(used.read_text(encoding="utf-8"))
        clock.began -= before["seconds"]
        clock.wall_began -= before["wall"]

    def report(record):
        marks.append((record.get("batch"), clock.seconds()))
        if "keep" in order:
            write_text(used, json.dumps({"seconds": clock.seconds(), "wall": clock.wall()}))

    with workers(order["threads"]) as map_fn, contextlib.suppress(Interrupted):
        trainer.fit(map_fn, report, lambda: clock.fraction() >= 1)
    return trainer, clock, marks


def seconds_of_an_epoch(make_config, split, folder, n_few):
    """Processor seconds of a training structure, and of the end of an epoch with its validation."""
    write_split(folder / "few.json", split._replace(train=split.train[:n_few], test=[]))
    _, _, marks = train(make_config(folder / "few.json", 2), folder / "few", 0)
    ends = [seconds for batch, seconds in marks if batch is None]
    last_step = max(seconds for batch, seconds in marks if batch is not None)
    return (last_step - ends[0]) / min(n_few, len(split.train)), ends[1] - last_step


def seconds_in_turns(makers, split, folder):
    """Processor seconds of a training structure by each of some ways to make a Config: {name: [of each round]}."""
    found = {name: [] for name in makers}
    split = split._replace(valid=split.valid[:FEW])
    for number in range(order["rounds"]):
        for name, make_config in makers.items():
            where = folder / f"{number}_{name}"
            where.mkdir()
            found[name].append(seconds_of_an_epoch(make_config, split, where, TIMED)[0])
    return found


def plan(make_config, split, folder):
    """How many structures are trained on, for how many epochs: what the order says, or what the budget holds."""
    known = folder / "plan.json"
    if "epochs" in order:
        return len(split.train), order["epochs"]
    if known.exists():
        return json.loads(known.read_text(encoding="utf-8"))
    budget = order["budget_s"] * SPARE
    batch_size = make_config(order["split"], 1).training.batch_size
    with tempfile.TemporaryDirectory(prefix="accuracy-") as probed:
        structure, end = seconds_of_an_epoch(make_config, split, Path(probed), PROBED * batch_size)
    n_used = min(len(split.train), max(int((budget / 2 - end) / structure), 2 * batch_size))
    epochs = max(int(budget / (n_used * structure + end)), 1)
    write_text(known, json.dumps([n_used, epochs]))
    return n_used, epochs


def main():
    facts = json.loads(Path(order["set_facts"]).read_text(encoding="utf-8"))
    split = read_split(order["split"])
    rule = load_experiment(SETTINGS[order["method"], order["set"]][0]).graph.rule
    own_path = Path(order["set_facts"]).with_name(f"{rule}.h5")
    path, base, changes = Path(order.get("graphs", own_path)), order.get("base", ()), order.get("changes", ())

    def make_config(split_file, epochs):
        return settings(path, facts["target"], split_file, epochs, (*base, *changes))

    def make_unchanged(split_file, epochs):
        return settings(order.get("unchanged_graphs", own_path), facts["target"], split_file, epochs, base)

    with contextlib.ExitStack() as stack:
        folder = Path(order.get("keep") or stack.enter_context(tempfile.TemporaryDirectory(prefix="accuracy-")))
        folder.mkdir(parents=True, exist_ok=True)
        if "rounds" in order:
            found = seconds_in_turns({"unchanged": make_unchanged, "changed": make_config}, split, folder)
            write_text(Path(order["result"]), json.dumps(found, indent=1) + "\n")
            return
        n_used, epochs = plan(make_config, split, folder)
        write_split(folder / "split.json", split._replace(train=split.train[:n_used]))
        trainer, clock, _ = train(make_config(folder / "split.json", epochs), folder / "run", order["budget_s"])
        best = load_checkpoint(folder / "run" / "model.h5")
    structures = common.Structures(order)
    rows = dict(zip(common.PARTS, resolve_split(split, trainer.dataset), strict=True))
    found = {
        part: predict_labels(best, trainer.ops, trainer.dataset.graphs, rows[part])[0][:, 0]
        for part in ("valid", "test")
    }
    errors = [record["valid_mae"] for record in trainer.history]
    common.write_result(
        order,
        structures,
        found,
        prepare_s=facts["graph_seconds_per_structure"][rule] * sum(map(len, split)),
        train_s=clock.seconds(),
        wall_s=clock.wall(),
        epochs=len(errors),
        planned_epochs=epochs,
        best_at=(1 + min(range(len(errors)), key=errors.__getitem__)) / len(errors),
        n_used=n_used,
        parameters=int(best.params.vector.size),
        recipe={"experiment": SETTINGS[order["method"], order["set"]], "changes": (*base, *changes)},
        versions={"refattn": refattn.__version__, **common.versions("numpy", "numba")},
    )


if __name__ == "__main__":
    main()
