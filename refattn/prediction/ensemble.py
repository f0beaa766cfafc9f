"""Ensembles: the same network trained from several seeds; a folder with a run in each of member_0, member_1, ...

The folder's ensemble.json says how many members were asked for and how they are trained. It is written before the
first of them, so that a training that was stopped can go on. A folder of finished runs without it is an ensemble too.
The runs of the folds of a split stand in fold_0, fold_1, ... beside folds.json in the same way; they are no ensemble.
"""

import dataclasses
import json
import tomllib
import typing
from pathlib import Path

from refattn.common.files import other_format, write_text
from refattn.common.strict_json import to_json
from refattn.config import Config, config_from_dict, to_toml
from refattn.data.fingerprint import same_data
from refattn.errors import ConfigError, RunError, in_one_line
from refattn.network.checkpoint import Checkpoint, load_checkpoint, model_file

FORMAT, VERSION = "refattn-ensemble", 1
MEMBER, PLAN = "member_{}", "ensemble.json"
FOLD, FOLDS = "fold_{}", "folds.json"
MAX_MEMBERS = 10_000


class Plan(typing.NamedTuple):
    """What was asked for: member k is trained with the seed training.seed + k, and everything else the same; or with
    data.fold = k.

    init : str, the run or model file whose parameters to start from; empty for random ones
    of_folds : bool, whether the runs are those of folds
    """

    config: Config
    n_members: int
    init: str = ""
    of_folds: bool = False

    def run_of(self, folder: Path, member: int) -> Path:
        """Where in a folder the run of a member, or fold, is."""
        return folder / (FOLD if self.of_folds else MEMBER).format(member)

    def init_of(self, folder: Path, member: int) -> str:
        """What the run of a member, or fold, begins with; nothing once it has begun, for it may be gone then."""
        return "" if (self.run_of(folder, member) / "last.h5").exists() else self.init

    def config_of(self, member: int) -> Config:
        """The Config of a member, or fold."""
        if self.of_folds:
            data = dataclasses.replace(self.config.data, n_folds=self.n_members, fold=member)
            return dataclasses.replace(self.config, data=data)
        training = dataclasses.replace(self.config.training, seed=self.config.training.seed + member)
        return dataclasses.replace(self.config, training=training)


def is_ensemble(run: Path | str) -> bool:
    """Whether the folder `run` is that of an ensemble, finished or not."""
    folder = Path(run)
    return (folder / PLAN).exists() or (folder / MEMBER.format(0)).is_dir()


def is_of_folds(run: Path | str) -> bool:
    """Whether the folder `run` is that of the folds of a split, finished or not."""
    return (Path(run) / FOLDS).exists()


def members_of(run: Path | str) -> list[Path]:
    """The runs of an ensemble's folder, in the order of their numbers; of any other run or model file, itself alone.

    Parameters
    ----------
    run : path

    Returns
    -------
    list of pathlib.Path

    Raises RunError where a member is missing or was not trained to its end.
    """
    folder = Path(run)
    planned = (folder / PLAN).exists()
    if planned:
        n_members = read_plan(folder).n_members
    else:
        n_members = len(list(folder.glob(MEMBER.format("*")))) if folder.is_dir() else 0
    members = [folder / MEMBER.format(n) for n in range(n_members)]
    missing = [path.name for path in members if not path.is_dir()]
    if missing and not planned:
        raise RunError(f"{folder}: {missing[0]} of its {n_members} members is missing; restore it, or train again")
    unfinished = [path.name for path in members if planned and not (path / "metrics.json").exists()]
    if unfinished:
        raise RunError(
            f"{folder}: {unfinished[0]} of its {n_members} members is not trained; go on with `refattn train --out "
            f"{folder} --resume`"
        )
    return members or [folder]


def load_members(run: Path | str) -> list[Checkpoint]:
    """The best model of every member of an ensemble, or of a run alone, as a list of Checkpoint.

    Raises RunError where one is missing or damaged, and where the members differ in more than seeds and parameters.
    """
    members = members_of(run)
    checkpoints = [load_checkpoint(model_file(member)) for member in members]
    first = checkpoints[0]
    for member, other in zip(members, checkpoints):
        same = [other.config.model == first.config.model, other.config.graph == first.config.graph]
        same += [other.config.data.target == first.config.data.target, other.unit == first.unit]
        same += [other.split == first.split, same_data(other.fingerprint, first.fingerprint)]
        if not all(same):
            raise RunError(
                f"{member}: has another network, neighbour rule, label, split or data than {members[0]}; an ensemble's "
                "members may differ in their seeds only"
            )
    if is_ensemble(run) and len(members) < 2:
        raise RunError(f"{run}: one member is no ensemble; give {members[0]} itself, or train more members")
    return checkpoints


def write_plan(folder: Path | str, plan: Plan) -> None:
    """Write a Plan as ensemble.json, or folds.json, of the folder; it appears complete or not at all.

    The metrics.json of an earlier Plan goes first: it marks what is finished. Raises OutputError.
    """
    (Path(folder) / "metrics.json").unlink(missing_ok=True)
    content = {"format": FORMAT, "version": VERSION, "n_members": plan.n_members, "init": plan.init}
    write_text(
        Path(folder) / (FOLDS if plan.of_folds else PLAN),
        to_json({**content, "config": to_toml(plan.config)}, indent=1) + "\n",
    )


def read_plan(folder: Path | str, of_folds: bool = False) -> Plan:
    """Read the Plan of the folder of an ensemble, or of folds.

    Raises RunError for a file that is missing, of another kind or changed.
    """
    path = Path(folder) / (FOLDS if of_folds else PLAN)
    if not path.exists() and (path.parent / "last.h5").exists():
        option, what = ("--folds", "folds") if of_folds else ("--ensemble", "ensemble")
        raise RunError(f"{folder}: holds a single run and no {what}; leave {option} out, or choose another --out")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if wrong := other_format(content, FORMAT, VERSION, "restore it, or train again"):
            raise RunError(f"{path}: {wrong}")
        plan = Plan(config_from_dict(tomllib.loads(content["config"])), content["n_members"], content["init"], of_folds)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise RunError(
            f"{path}: cannot be read as the plan of an ensemble ({in_one_line(error)}); restore it, or train again"
        ) from None
    if type(plan.n_members) is not int or not 2 <= plan.n_members <= MAX_MEMBERS or not isinstance(plan.init, str):
        raise RunError(f"{path}: n_members or init is impossible; restore it, or train again")
    return plan
