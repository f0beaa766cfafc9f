"""refattn's recipe, and the authors' SCANN+ with the options that they publish; runs in refattn's own environment.

Both are experiments that ship, with the changes below. Their rate falls over a number of epochs, which is chosen for
the budget: two epochs over a few structures say how long one takes (not counted, nor is compilation). Where the budget
does not hold two epochs, fewer structures are trained on, `n_used` of the result. The warm restarts of the authors,
after 50, 150, ... epochs, become one period over the budget. Where the order has `members`, so many networks, each of
another seed, share the budget evenly, and the mean of their predictions is tested.
"""

import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path

import common

import refattn
from refattn.common.threads import workers
from refattn.config import override
from refattn.data.splits import read_split, resolve_split, write_split
from refattn.experiments import load_experiment
from refattn.network.checkpoint import load_checkpoint
from refattn.network.inference import predict_members
from refattn.training.train import Interrupted, Trainer

order = common.read_order()

# (method, set) -> experiment and what is changed
SETTINGS = {
    ("refattn", "qm9_gap"): ("molecules_b3lyp", ("training.learning_rate=5e-4",)),  # nothing to start from here
    ("refattn", "mp_e_form"): ("crystals", ()),
    ("refattn", "fullerene_homo"): ("fullerene_homo", ()),
    ("refattn", "fullerene_energy"): ("builtin_fullerene", ()),
    ("refattn", "pt_graphene"): ("builtin_pt_graphene", ()),
    ("scann+", "qm9_gap"): ("qm9", ()),
    ("scann+", "mp_e_form"): ("materials_project", ("model.n_elements=119",)),  # plutonium and what follows
    ("scann+", "fullerene_homo"): ("fullerene", ()),
}
PROBED = 24  # batches of an epoch that says how long one takes
SPARE = 0.94  # of the budget, for what the estimate misses


def settings(path, target, split, epochs, seed):
    """The Config of a training on the structures of a Split file."""
    experiment, changes = SETTINGS[order["method"], order["set"]]
    config = override(load_experiment(experiment), (*changes, *order.get("changes", ())))
    data = {"path": str(path), "target": target, "split": str(split), "split_by": "file"}
    data |= {"n_train": 0, "n_valid": 0, "n_test": 0, "target_weight": ()}
    training = {"epochs": epochs, "sgdr_period": epochs, "seed": seed, "patience": epochs}
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, **data),
        training=dataclasses.replace(config.training, **training),
    )


def train(config, folder, budget):
    """Train in a new `folder` until the budget ends: the Trainer, its Clock, (batch, None after an epoch; seconds)."""
    folder.mkdir()
    trainer = Trainer.start(config, folder, None, "cpu")
    trainer.write_settings(resumed=False)
    clock, marks = common.Clock(budget), []

    def report(record):
        marks.append((record.get("batch"), clock.seconds()))

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


def main():
    facts = json.loads(Path(order["set_facts"]).read_text(encoding="utf-8"))
    split = read_split(order["split"])
    rule = load_experiment(SETTINGS[order["method"], order["set"]][0]).graph.rule
    path = Path(order.get("graphs", Path(order["set_facts"]).with_name(f"{rule}.h5")))

    members = order.get("members", 1)

    def make_config(split_file, epochs, member=0):
        return settings(path, facts["target"], split_file, epochs, order["seed"] * members + member)

    with tempfile.TemporaryDirectory(prefix="accuracy-") as folder:
        folder = Path(folder)
        batch_size = make_config(order["split"], 1).training.batch_size
        structure, end = seconds_of_an_epoch(make_config, split, folder, PROBED * batch_size)
        budget = order["budget_s"] / members * SPARE
        n_used = min(len(split.train), max(int((budget / 2 - end) / structure), 2 * batch_size))
        epochs = max(int(budget / (n_used * structure + end)), 1)
        write_split(folder / "split.json", split._replace(train=split.train[:n_used]))
        trained, best, times = [], [], []
        for member in range(members):
            config, run = make_config(folder / "split.json", epochs, member), folder / f"run_{member}"
            trainer, clock, _ = train(config, run, order["budget_s"] / members)
            times.append((clock.seconds(), clock.wall()))
            trained.append([record["valid_mae"] for record in trainer.history])
            best.append(load_checkpoint(run / "model.h5"))
    structures = common.Structures(order)
    rows = dict(zip(common.PARTS, resolve_split(split, trainer.dataset), strict=True))
    found = {
        part: predict_members(best, trainer.ops, trainer.dataset.graphs, rows[part]).value[:, 0]
        for part in ("valid", "test")
    }
    common.write_result(
        order,
        structures,
        found,
        prepare_s=facts["graph_seconds_per_structure"][rule] * sum(map(len, split)),
        train_s=sum(seconds for seconds, _ in times),
        wall_s=sum(wall for _, wall in times),
        epochs=sum(map(len, trained)) / members,
        planned_epochs=epochs,
        best_at=max((1 + min(range(len(errors)), key=errors.__getitem__)) / len(errors) for errors in trained),
        n_used=n_used,
        parameters=int(best[0].params.vector.size),
        members_valid_mae=[min(errors) for errors in trained],
        recipe={"experiment": SETTINGS[order["method"], order["set"]], "changes": order.get("changes", ())},
        versions={"refattn": refattn.__version__, **common.versions("numpy", "numba")},
    )


if __name__ == "__main__":
    main()
