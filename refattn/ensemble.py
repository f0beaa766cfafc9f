"""Ensembles: the same network trained from several seeds; a folder with a run in each of member_0, member_1, ..."""

from pathlib import Path

from refattn.errors import RunError

MEMBER = "member_{}"


def members_of(run):
    """The runs of an ensemble's folder, in the order of their numbers; of any other run or model file, itself alone.

    Parameters
    ----------
    run : path

    Returns
    -------
    list of pathlib.Path

    Raises RunError where a member is missing.
    """
    folder = Path(run)
    n_members = len(list(folder.glob(MEMBER.format("*")))) if folder.is_dir() else 0
    members = [folder / MEMBER.format(n) for n in range(n_members)]
    missing = [path.name for path in members if not path.is_dir()]
    if missing:
        raise RunError(f"{folder}: {missing[0]} of its {n_members} members is missing; restore it, or train again")
    return members or [folder]
