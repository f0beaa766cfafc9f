"""What the numbers of a study say, in sentences; each has a topic and a verdict."""

import typing

from refattn.common.text import counted
from refattn.validation.agreement import BASELINES
from refattn.validation.equivalence import EQUAL
from refattn.validation.study import UNTRAINED

HOLDS = "holds"
FAILS = "does not hold"
UNDECIDED = "undecided"
UNTESTED = "not tested"
FORGOTTEN = 0.3  # rank correlation below which a score of random parameters is another one
CALM, SHAKY = 0.1, 0.5  # relative changes by a rattle up to which a score is stable, and above which it is not
UNEQUAL = 0.1  # spread of equivalent sites that 0.001 Å, within which they are equivalent, does not explain
FOLLOWS = 0.3  # rank correlation below which a score hardly follows an orbital, however sure its mean is
SITES = {"all": "all sites", "without_hydrogen": "sites other than hydrogen"}


class Sentence(typing.NamedTuple):
    """A topic, one of the four verdicts or nothing, and the text."""

    topic: str
    verdict: str
    text: str


def title_of(name: str, record: dict) -> str:
    """A score or baseline in words."""
    if name.startswith(UNTRAINED):
        return f"untrained: {title_of(name.removeprefix(UNTRAINED), record)}"
    return record["titles"].get(name) or BASELINES.get(name) or name.replace("_", " ")


def with_error(numbers: dict, digits: int = 2) -> str:
    """Mean and the half width of its interval."""
    if numbers["mean"] is None:
        return "undefined"
    error = "" if numbers["error"] is None else f" ± {numbers['error']:.{digits}f}"
    return f"{numbers['mean']:.{digits}f}{error}".replace("-", "−")


def sign_of(numbers: dict) -> int | None:
    """1 or -1 where the interval of the mean is on one side of zero, else 0; None where there is no interval."""
    if numbers["error"] is None:
        return None
    return (numbers["mean"] > numbers["error"]) - (numbers["mean"] < -numbers["error"])


def sentences(record: dict) -> list[Sentence]:
    """All sentences about a study (study.validate); of several targets the topics begin with their names.

    Returns
    -------
    list of Sentence
    """
    if "targets" in record:
        each = record["targets"].items()
        return [said._replace(topic=f"{name}: {said.topic}") for name, own in each for said in sentences(own)]
    parts = (_prediction, _taught, _agreement, _faithfulness, _stability, _randomisation, _equivalence)
    parts += (_sensitivity, _complexity)
    return [sentence for part in parts for sentence in part(record)]


def _prediction(record):
    known = [mae for mae in record["mae"] if mae is not None]
    runs = f"{record['n_runs']} runs" if record["n_runs"] > 1 else "one run"
    text = f"{counted(record['n_structures'], 'structure')} with {counted(record['n_sites'], 'site')}, {runs}."
    if known:
        low, high = min(known), max(known)
        error = f"{low:.3g}" if len(known) == 1 else f"{low:.3g} to {high:.3g}"
        unit = f" {record['unit']}" if record["unit"] else ""
        text += (
            f" The mean absolute error of {record['target']} is {error}{unit}; that of always predicting "
            f"their mean {record['label_mean_absolute_deviation']:.3g}{unit}."
        )
    text += f" {record['errors_of_run']}" if record.get("errors_of_run") else ""
    return [Sentence("what was tested", "", text)]


def _taught(record):
    """Whether somebody taught the attention, which then says where the array is and not what the network found."""
    if "taught" not in record:  # a score of another model
        return []
    arrays = sorted({array for array in record["taught"] if array})
    n_taught = sum(array is not None for array in record["taught"])
    if not n_taught:
        text = "The global attention was not taught: nothing but the error of the prediction shaped it."
    else:
        runs = "" if n_taught == len(record["taught"]) else f" in {n_taught} of {len(record['taught'])} runs"
        text = (
            f"The global attention was taught{runs}: the loss held it to {', '.join(arrays)} of the training set. "
            "Where it follows that array in other structures it generalises; the network did not find it by itself."
        )
    return [Sentence("what was tested", "", text)]


def _agreement(record):
    if not record["agreement"]:
        return [Sentence("orbitals", UNTESTED, "The structures have no orbital populations.")]
    found = []
    for population, by_sites in record["agreement"].items():
        for which, rows in by_sites.items():
            topic = f"{population.split('_')[0].upper()} population, {SITES[which]}"
            scores = [name for name in rows if name in record["titles"]]
            found += [_follows(topic, name, rows, record) for name in scores]
            found.append(_context(topic, rows, record))
    return found


def _follows(topic, name, rows, record):
    """Whether a score follows the orbital better than the element alone."""
    row = rows[name]
    gain = sign_of(rows[name]["gain_on_element"])
    says = {1: "better than", -1: "worse than", 0: "not distinguishably from", None: "beside"}[gain]
    verdict = {1: HOLDS, -1: FAILS, 0: UNDECIDED, None: UNTESTED}[gain]
    if verdict == HOLDS and row["spearman"]["mean"] < FOLLOWS:
        says = "hardly at all, though better than"
        verdict = FAILS
    better = row["better_than_element"]
    share = "" if better is None else f", better in {100 * better:.0f} % of structures"
    text = (
        f"{title_of(name, record)}: rank correlation {with_error(row['spearman'])} over {row['spearman']['n']} "
        f"structures, {says} the element alone (gain {with_error(row['gain_on_element'])}{share})."
    )
    return Sentence(topic, verdict, text[0].upper() + text[1:])


def _context(topic, rows, record):
    """The best score beside the strongest baseline and the untrained network."""

    def mean(name):
        return -2.0 if rows[name]["spearman"]["mean"] is None else rows[name]["spearman"]["mean"]

    scores = [name for name in rows if name in record["titles"]]
    most = max(rows[name]["spearman"]["n"] for name in scores)  # a mean over the first structures only is another
    best = max((name for name in scores if rows[name]["spearman"]["n"] == most), key=mean)
    plain = max((n for n in rows if n in BASELINES), key=mean)
    blank = max((n for n in rows if n.startswith(UNTRAINED)), key=mean)
    text = (
        f"The best score is {title_of(best, record)} ({with_error(rows[best]['spearman'])}), the best of what needs no "
        f"network {title_of(plain, record)} ({with_error(rows[plain]['spearman'])}), the best of an untrained network "
        f"{title_of(blank.removeprefix(UNTRAINED), record)} ({with_error(rows[blank]['spearman'])})."
    )
    return Sentence(topic, "", text)


def _faithfulness(record):
    found = []
    for name, row in record["faithfulness"].items():
        if name not in record["titles"]:
            continue
        deleted = sign_of(row["deletion"]["minus_random"])
        kept = sign_of(row["insertion"]["minus_random"])
        verdict = HOLDS if (deleted, kept) == (1, -1) else FAILS if deleted == -1 or kept == 1 else UNDECIDED
        text = (
            f"{title_of(name, record)}: deleting its first sites changes the prediction "
            f"{_times(row['deletion']['over_random'])} as much as deleting random ones; keeping only them leaves "
            f"{_times(row['insertion']['over_random'])} the error of random ones."
        )
        found.append(Sentence("deletion and insertion", verdict, text[0].upper() + text[1:]))
    plain = [name for name in record["faithfulness"] if name in BASELINES]
    if plain:
        best = max(plain, key=lambda name: record["faithfulness"][name]["deletion"]["area"]["mean"])
        row = record["faithfulness"][best]
        text = (
            f"Without a network: {title_of(best, record)} gives {_times(row['deletion']['over_random'])} and "
            f"{_times(row['insertion']['over_random'])}. Deleting a site here takes its element from the network, "
            "not its place."
        )
        found.append(Sentence("deletion and insertion", "", text))
    return found


def _times(ratio):
    return "no number of times" if ratio is None else f"{ratio:.2f} times"


def _stability(record):
    if not record["stability"]:
        text = "There is one run only; give an ensemble (refattn train --ensemble K) to compare seeds."
        text = text if "taught" in record else "There are scores of one model only; give `seeds` of others."
        return [Sentence("seeds", UNTESTED, text)]
    found = []
    for which, rows in record["stability"].items():
        for name, row in rows.items():
            mean = row["spearman"]["mean"]
            verdict = UNTESTED if mean is None else HOLDS if mean >= 0.8 else UNDECIDED if mean >= 0.5 else FAILS
            text = (
                f"{title_of(name, record)} of two runs: rank correlation {with_error(row['spearman'])}, overlap of the "
                f"{record['top']} first sites {with_error(row['top_overlap'])}."
            )
            found.append(Sentence(f"seeds, {SITES[which]}", verdict, text[0].upper() + text[1:]))
    return found


def _randomisation(record):
    found = []
    numbers = record["randomisation"]
    if not numbers["all"]:
        found.append(
            Sentence("random parameters", UNTESTED, "No score is there of a model whose parameters are random.")
        )
    for name, means in numbers["all"].items():
        left = means[-1]
        verdict = UNTESTED if left is None else HOLDS if abs(left) < FORGOTTEN else FAILS
        shown = "undefined" if left is None else f"{left:.2f}".replace("-", "−")
        each = [one for one in numbers.get("draws", {}).get("all", {}).get(name, ()) if one is not None]
        low, high = (f"{one:.2f}".replace("-", "−") for one in (min(each), max(each))) if each else ("", "")
        of_draws = f" ({low} to {high} of {len(each)} draws)" if len(each) > 1 else ""
        text = (
            f"{title_of(name, record)} with random parameters: rank correlation {shown}{of_draws} with that of the "
            "trained run."
        )
        found.append(Sentence("random parameters", verdict, text[0].upper() + text[1:]))
    return found


def _equivalence(record):
    found = []
    numbers = record["equivalence"]
    for structure, spreads in numbers["exact"].items():
        name = max(spreads, key=spreads.get)
        verdict = HOLDS if spreads[name] <= EQUAL else FAILS
        text = (
            f"{structure}: scores of equivalent sites differ by at most {spreads[name]:.1e} ({title_of(name, record)})."
        )
        found.append(Sentence("equivalent sites", verdict, text[0].upper() + text[1:]))
    own = "taught" in record  # not a score of another model
    if own and not numbers["exact"]:
        text = "The runs know none of the exact structures' elements."
        found.append(Sentence("equivalent sites", UNTESTED, text))
    if not own and not numbers["data"]:
        found.append(Sentence("equivalent sites", UNTESTED, "No structure has sites that are equivalent."))
    if numbers["data"]:
        name = max(numbers["data"], key=lambda name: numbers["data"][name]["largest"])
        row = numbers["data"][name]
        have = "has" if numbers["n_symmetric"] == 1 else "have"
        text = (
            f"Of the structures, {numbers['n_symmetric']} {have} sites that are equivalent within 0.001 Å; their "
            f"scores differ by at most {row['largest']:.1e} of the largest ({title_of(name, record)} in {row['id']})."
        )
        verdict = HOLDS if row["largest"] <= EQUAL else FAILS if row["largest"] > UNEQUAL else UNDECIDED
        found.append(Sentence("equivalent sites", "" if own else verdict, text))
    return found


def _sensitivity(record):
    found = []
    for name, row in record["max_sensitivity"].items():
        mean = row["mean"]
        if mean is None:
            text = f"{title_of(name, record)} is zero, or unknown, in all structures; its change has no size."
            found.append(Sentence("stability", UNTESTED, text[0].upper() + text[1:]))
            continue
        verdict = HOLDS if mean <= CALM else FAILS if mean > SHAKY else UNDECIDED
        of = f" ({row['n']} of {record['n_costly']} structures)" if row["n"] < record.get("n_costly", 0) else ""
        text = (
            f"{title_of(name, record)}: a rattle of {record['rattle']:g} Å changes it by {with_error(row)} of its "
            f"size{of}."
        )
        found.append(Sentence("stability", verdict, text[0].upper() + text[1:]))
    if not found:
        text = "No score is there of rattled structures; give a function that computes scores."
        text = text if "taught" not in record else "No structure can be explained when it is rattled."
        found.append(Sentence("stability", UNTESTED, text))
    return found


def _complexity(record):
    found = []
    for name, row in record["complexity"].items():
        entropy = with_error(row["entropy"])
        text = (
            f"{title_of(name, record)}: entropy {entropy} nats, {with_error(row['of_even'])} of that of an even score."
        )
        found.append(Sentence("complexity", "", text[0].upper() + text[1:]))
    return found
