"""Training of an ensemble: the same network from several seeds, one run after the other, and their mean at the end."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from refattn.common.environment import available_cores
from refattn.common.files import make_directory, only_process
from refattn.common.threads import workers
from refattn.config import Config, load_config
from refattn.data.builtin import data_of_run, open_data_for
from refattn.errors import ConfigError, RunError, in_one_line
from refattn.network.checkpoint import model_file
from refattn.prediction.ensemble import MAX_MEMBERS, PLAN, Plan, load_members, members_of, read_plan, write_plan
from refattn.prediction.run_directory import ORIGIN, continued_config, free_directory, load_initial, refuse_existing
from refattn.training.results import targets_of, write_ensemble_results
from refattn.training.train import open_split, train


def train_ensemble(
    config: Config | None,
    n_members: int | None,
    out: str | os.PathLike | None = None,
    n_threads: int | None = None,
    resume: bool = False,
    init: str | os.PathLike | None = None,
    progress: Callable[[dict], None] | None = None,
    stop: Callable[[], bool] | None = None,
    device: str = "cpu",
) -> dict:
    """Train an ensemble and leave its folder: a complete run in each of member_0, member_1, ..., and their mean.

    The members have the configuration and the split in common; member k has the seed training.seed + k.

    Parameters
    ----------
    config, n_members : Config, int      with `resume` they may be None: those of the folder's ensemble.json
    out, n_threads, init, stop, device   as of refattn.train
    resume : bool
        As of refattn.train; members that are finished stay as they are.
    progress : callable (dict), optional
        As of refattn.train; every dict has `member` and `n_members` too.

    Returns
    -------
    dict, as written to metrics.json: the metrics of the mean of the members' predictions, and the test MAE of each

    Raises what refattn.train raises.
    """
    out = Path(out) if out else free_directory("-".join(config.data.targets))
    begun = resume and (config is None or (out / PLAN).exists())
    if not begun:
        plan = start_ensemble(config, n_members, out, init)
        make_directory(out)
    if begun and not out.is_dir():
        read_plan(out)
    with only_process(out):
        if begun:
            plan = continued_plan(out, config, n_members, init)
        else:
            refuse_existing(out)  # another process may have begun
            write_plan(out, plan)
        train_runs(plan, out, n_threads, progress, stop, device)
        return finish_ensemble(out, n_threads or available_cores(), device)


def train_runs(
    plan: Plan,
    out: Path,
    n_threads: int | None,
    progress: Callable[[dict], None] | None,
    stop: Callable[[], bool] | None,
    device: str,
) -> None:
    """Train those runs of a Plan that are not finished, one after the other."""
    for number in range(plan.n_members):
        run = plan.run_of(out, number)
        if is_finished(run, plan.config):
            continue
        about = {"member": number, "n_members": plan.n_members}
        report = progress and (lambda record, about=about: progress({**record, **about}))
        train(plan.config_of(number), run, n_threads, True, plan.init_of(out, number), report, stop, device)


def start_ensemble(config: Config, n_members: int, out: Path, init: str | os.PathLike | None) -> Plan:
    """The Plan, after everything that can be checked before the first member."""
    if not 2 <= n_members <= MAX_MEMBERS:
        raise ConfigError(f"an ensemble of {n_members} is none; ask for at least 2 members, at most {MAX_MEMBERS}")
    return checked_plan(Plan(config, n_members), out, init)


def checked_plan(plan: Plan, out: Path, init: str | os.PathLike | None) -> Plan:
    """The Plan with its settings resolved and `init`; raises what the first run would before it trains."""
    refuse_existing(out)
    config = open_split(plan.config_of(0))[0]
    if init:
        load_initial(init, config)
    return plan._replace(config=config, init=os.path.abspath(model_file(init)) if init else "")


def continued_plan(
    out: Path, config: Config | None, n_members: int | None, init: str | os.PathLike | None, of_folds: bool = False
) -> Plan:
    """The Plan in `out`, with what may change in it. Raises RunError where other settings are asked for."""
    plan = read_plan(out, of_folds)
    if n_members not in (None, plan.n_members):
        what = f"it has {plan.n_members} folds" if of_folds else f"its ensemble has {plan.n_members} members"
        raise RunError(f"{out}: {what} (asked for: {n_members}); choose another --out")
    if init and os.path.abspath(model_file(init)) != (plan.init and os.path.abspath(model_file(plan.init))):
        raise RunError(f"{out}: its runs do not begin with {init}; leave --init out, or choose another --out")
    now = plan._replace(config=continued_config(plan.config, config, out))
    if now != plan:
        write_plan(out, now)
    return now


def is_finished(member: Path, config: Config) -> bool:
    """Whether the run `member` was trained to its end, and for as many epochs as are asked for."""
    if not (member / "metrics.json").exists():
        return False
    settings = member / "config.toml"
    return not settings.exists() or load_config(settings).training.epochs >= config.training.epochs


def finish_ensemble(out: Path, n_threads: int, device: str) -> dict:
    """Evaluate the finished members together."""
    member_metrics = [read_metrics(member / "metrics.json") for member in members_of(out)]
    checkpoints = load_members(out)
    config = checkpoints[0].config
    dataset = open_data_for(config, data_of_run(config.data.path, out))
    with workers(n_threads) as map_fn:
        return write_ensemble_results(out, checkpoints, member_metrics, dataset, map_fn, device)


def read_metrics(path: Path, parts: Sequence[str] = ("test",), names: Sequence[str] = ()) -> dict:
    """Of the metrics.json of a run: n and mae of the `parts` of each target, those of `names` it has, seconds, init.

    Raises RunError for a file that cannot be read or lacks what is needed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        targets = {}
        for target, found in targets_of(content).items():
            targets[target] = {name: found[name] for name in names if name in found}
            targets[target] |= {part: {key: found[part][key] for key in ("n", "mae")} for part in parts}
        found = {"targets": targets, "seconds": float(content["seconds"])}
        return found | ({"init": {key: content["init"][key] for key in ORIGIN}} if "init" in content else {})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path}: cannot be read as metrics ({in_one_line(error)}); remove it and go on with --resume"
        ) from None
