"""The tests of an explanation, against SciPy, brute force and planted results."""

import dataclasses
import itertools

import ase
import numpy as np
import pytest
from ase.build import molecule
from ase.data import covalent_radii
from explanation_cases import NAMES, OPS, SAME, STD, network, own_rows, populated_structures, shard_of
from scipy.integrate import trapezoid
from scipy.spatial.distance import jensenshannon, pdist
from scipy.stats import norm, spearmanr

from refattn.common.ranks import top_overlap
from refattn.errors import DataError, RunError, StructureError
from refattn.explanation.comparison import POPULATIONS
from refattn.explanation.explain import explain
from refattn.explanation.symmetry import equivalent_sites, symmetrised
from refattn.explanation.variants import ScoredInput
from refattn.network.params import initialise
from refattn.report import findings as report
from refattn.report.sentences import FAILS, HOLDS, UNTESTED, sentences
from refattn.validation import study
from refattn.validation.agreement import (
    agreement,
    baseline_scores,
    divergence,
    mean_and_error,
)
from refattn.validation.equivalence import EQUAL, exact_structures, known_to
from refattn.validation.faithfulness import STEPS, area, deletion_and_insertion, orders
from refattn.validation.parameters import randomised, stages, untrained
from refattn.validation.study import DRAWS, Settings, draws, validate

QUICK = Settings(scores=("occlusion",), n_costly=2, n_threads=1)


def verdicts(record, topic):
    return {s.text.split(":")[0]: s.verdict for s in sentences(record) if s.topic == topic and s.verdict}


def test_divergence_is_scipys():
    rng = np.random.default_rng(0)
    for n in (2, 5, 30):
        p, q = rng.random(n), rng.random(n)
        q[0] = 0
        assert divergence(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2, abs=1e-14)
    assert divergence(np.array([1.0, 0]), np.array([0, 2.0])) == 1
    assert np.isnan(divergence(np.zeros(3), np.ones(3)))


def test_top_overlap_without_ties_is_that_of_the_sets():
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y = rng.random(9), rng.random(9)
        want = len(set(np.argsort(x)[-3:]) & set(np.argsort(y)[-3:])) / 3
        assert top_overlap(x, y, 3) == pytest.approx(want, abs=1e-15)


def test_sites_that_tie_share_the_last_places():
    x = np.array([5, 2, 2, 2, 2, 1.0])  # the first, and half of each of four
    assert top_overlap(x, np.array([9, 8, 7, 0, 0, 0.0]), 3) == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert top_overlap(x, x, 3) == 1
    assert top_overlap(np.ones(8), np.arange(8.0), 3) == pytest.approx(3 / 8)


def test_agreement_ranks_magnitudes():
    rng = np.random.default_rng(2)
    score, population = rng.standard_normal(12), rng.random(12)
    found = agreement(score, population)
    assert found[0] == pytest.approx(spearmanr(np.abs(score), population).statistic, abs=1e-14)
    assert found[2] == pytest.approx(jensenshannon(np.abs(score), population, base=2) ** 2, abs=1e-14)


def test_what_cannot_tell_is_no_number():
    assert np.isnan(agreement(np.arange(3.0), np.arange(3.0))).all()  # three sites: the first three are all
    assert np.isnan(agreement(np.arange(6.0), np.full(6, 1 / 6))).all()
    assert agreement(np.ones(6), np.arange(6.0))[0] == 0  # an even score ranks nothing


def test_baseline_is_the_mean_of_the_other_structures():
    rng = np.random.default_rng(3)
    keys = [rng.integers(0, 4, n) for n in (5, 7, 3, 6)] + [np.array([9, 9])]  # 9 occurs nowhere else
    known = [rng.random(len(key)) for key in keys]
    found = baseline_scores(keys, known)
    for s, key in enumerate(keys):
        for i, own in enumerate(key):
            others = [
                v * len(keys[t]) for t in range(len(keys)) if t != s for k, v in zip(keys[t], known[t]) if k == own
            ]
            assert found[s][i] == pytest.approx(np.mean(others) if others else 1.0, abs=1e-12)


def test_populations_are_averaged_over_equivalent_sites():
    atoms = exact_structures()[1]
    classes = equivalent_sites(atoms)
    angle = np.arange(6) * np.pi / 3
    degenerate = [np.append(f(angle) ** 2 / 3, np.zeros(6)) for f in (np.cos, np.sin)]  # benzene's E1g, either choice
    for values in degenerate:
        np.testing.assert_allclose(symmetrised(values, classes), np.repeat([1 / 6, 0], 6), atol=1e-15)


def test_interval_of_the_mean():
    values = np.append(np.random.default_rng(4).random(50), np.nan)
    found = mean_and_error(values)
    low, high = norm.interval(0.95, values[:50].mean(), values[:50].std(ddof=1) / 50**0.5)
    assert found["mean"] == pytest.approx((low + high) / 2)
    assert found["error"] == pytest.approx((high - low) / 2, rel=1e-4)  # 1.96 for 1.95996
    assert found["n"] == 50
    assert mean_and_error(np.array([np.nan])) == {"mean": None, "error": None, "n": 0}


def test_deletion_and_insertion_are_those_of_a_network_without_the_sites():
    """Brute force: the rows of the table of elements that belong to the sites are set to zero."""
    model, atoms = network({"embedding_width": 8}), molecule("CH3CH2OH")
    config = model.config
    shard = shard_of(atoms, config.model, **dataclasses.asdict(config.graph))
    subject = ScoredInput.of(model.checkpoint.params, config.model, OPS, shard)
    order = np.random.default_rng(5).permutation(len(atoms))[None]
    found = deletion_and_insertion(subject, order) * STD
    table, output = own_rows(model, atoms)
    full, rows = output(), table.copy()
    for step in range(STEPS + 1):
        first = order[0, : round(step * len(atoms) / STEPS)]
        table[:] = rows
        table[first] = 0
        deleted = abs(output() - full)
        table[:] = 0
        table[first] = rows[first]
        np.testing.assert_allclose(found[:, step], [deleted, abs(output() - full)], atol=SAME)
    np.testing.assert_allclose([found[0, 0], found[1, -1]], 0, atol=SAME)
    assert found[0, -1] > 0.01


def test_area_of_curves():
    x = np.linspace(0, 1, STEPS + 1)
    np.testing.assert_allclose(area(np.stack([x, 1 - x**2])), trapezoid(np.stack([x, 1 - x**2]), x, axis=1))


def test_orders_fall_by_magnitude_and_break_ties_at_random():
    scores = {"signed": np.array([1.0, -3, 2, 0]), "even": np.ones(4)}
    found = [orders(scores, np.random.default_rng(seed)) for seed in range(20)]
    assert all(order["signed"].tolist() == [[1, 2, 0, 3]] for order in found)
    assert len({tuple(order["even"][0]) for order in found}) > 5
    assert all((np.sort(order["random"], axis=1) == np.arange(4)).all() for order in found)


def test_parameters_become_random_group_by_group():
    model = network({"n_layers": 3})
    before, fresh = model.checkpoint.params, initialise(model.config.model, (1 << 64) + 7, "float64")
    found = list(randomised(model, 7))
    assert [text for text, _ in found] == ["output", "global attention", "layer 3", "layer 2", "layer 1", "input"]
    assert len(stages(model.config.model)) == len(found)
    changed = [{n for n in before if not np.array_equal(m.checkpoint.params[n], before[n])} for _, m in found]
    assert all(a < b for a, b in itertools.pairwise(changed))
    assert changed[0] == {"hidden_w", "hidden_b", "output_w", "output_b"}
    assert changed[-1] == set(before)  # no parameter of this network was at its initial value
    np.testing.assert_array_equal(found[-1][1].checkpoint.params.vector, fresh.vector)
    np.testing.assert_array_equal(untrained(model, 7).checkpoint.params.vector, fresh.vector)


def test_random_parameters_are_those_of_no_run_and_several():
    """A run that is still at its beginning says nothing of what was learned."""
    model = network()
    begun = initialise(model.config.model, 0, "float64")
    model.checkpoint = dataclasses.replace(model.checkpoint, params=begun)
    assert all(not np.array_equal(begun["embed"], untrained(model, seed).checkpoint.params["embed"]) for seed in (0, 1))
    atoms = [molecule(name) for name in NAMES]
    record = validate([model], atoms, dataclasses.replace(QUICK, n_costly=len(atoms)))
    each = record["randomisation"]["draws"]["all"]["beta"]
    assert len(each) == len({*each}) == DRAWS
    of_draw = [len(atoms[draw::DRAWS]) for draw in range(DRAWS)]
    assert record["randomisation"]["all"]["beta"][-1] == pytest.approx(np.average(each, weights=of_draw))
    text = next(s.text for s in sentences(record) if s.topic == "random parameters")
    assert f"of {DRAWS} draws)" in text
    blank = [untrained(model, seed).checkpoint.params.vector for seed in draws(atoms, QUICK)]
    assert len({vector.tobytes() for vector in blank}) == DRAWS


def test_a_structure_as_narrow_as_is_allowed_is_tested_but_for_the_rattle():
    """Its copies are narrower; networks of random parameters keep the smallest distance that was asked for."""
    model = network()
    model.config = dataclasses.replace(model.config, graph=dataclasses.replace(model.config.graph, min_distance=0.3))
    near, usual = molecule("CH3OH"), molecule("C2H4")
    bond = 0.3 * (covalent_radii[6] + covalent_radii[1])
    hydrogen = int(np.flatnonzero(near.numbers == 1)[-1])
    near.set_distance(0, hydrogen, bond * (1 + 1e-9), fix=0)
    record = validate([model], [near, usual], QUICK)
    assert {row["n"] for row in record["max_sensitivity"].values()} == {1}
    assert "of its size (1 of 2 structures)" in next(s.text for s in sentences(record) if s.topic == "stability")
    assert record["n_structures"] == 2 and record["randomisation"]["all"]["beta"]
    alone = verdicts(validate([model], [near], QUICK), "stability")
    assert alone == {"No structure can be explained when it is rattled.": UNTESTED}


def test_occlusion_beyond_its_limit_is_not_called_equal(monkeypatch):
    monkeypatch.setattr("refattn.explanation.explain.OCCLUDED_SITES", 3)
    record = validate([network()], molecules_without_labels(), QUICK)
    assert all("occlusion" not in own and "beta" in own for own in record["equivalence"]["exact"].values())
    assert "occlusion" not in record["equivalence"]["data"]


def test_exact_structures_are_what_they_say():
    sizes = {a.info["id"]: sorted(np.bincount(equivalent_sites(a, 1e-9)).tolist()) for a in exact_structures()}
    assert sizes == {"ethene": [2, 4], "benzene": [6, 6], "C60": [60], "diamond": [8]}
    c60 = exact_structures()[2]
    near = np.sort(pdist(c60.positions))[:91]
    np.testing.assert_allclose(near[:90], 1.42, atol=1e-12)  # 90 bonds
    assert near[90] > 2.2
    ethene = exact_structures()[0]
    assert ethene.get_angle(2, 0, 3) == pytest.approx(117.6)
    assert ethene.get_distance(0, 2) == pytest.approx(1.086)


def test_elements_that_the_run_never_saw_are_not_probed():
    model = network()
    carbon = dataclasses.replace(model.checkpoint, elements=(6,))
    model.checkpoint = carbon
    assert [a.info["id"] for a in known_to(model, exact_structures())] == ["C60", "diamond"]


def test_a_planted_agreement_is_found():
    """Populations that ARE the attention of the first network."""
    model = network()
    record = validate([model], populated_structures(lambda atoms: explain(model, atoms, ()).beta), QUICK)
    for which in ("all", "without_hydrogen"):
        row = record["agreement"]["homo_population"][which]["beta"]
        assert (row["spearman"]["mean"], row["top_overlap"]["mean"]) == pytest.approx((1, 1))
        assert row["divergence"]["mean"] == pytest.approx(0, abs=1e-12)
    assert verdicts(record, "HOMO population, all sites")["Global attention"] == HOLDS


def test_a_planted_element_is_seen_through():
    """Populations that the element alone decides: no score of a network may be called better."""
    model = network()
    record = validate([model], populated_structures(lambda atoms: atoms.numbers.astype(float) ** 2), QUICK)
    rows = record["agreement"]["lumo_population"]["all"]
    assert rows["element"]["spearman"]["mean"] == pytest.approx(1)
    assert HOLDS not in verdicts(record, "LUMO population, all sites").values()
    assert rows["even"]["spearman"]["mean"] == 0


def test_a_weak_correlation_is_called_weak_however_sure_it_is():
    model = network()
    record = validate([model], populated_structures(lambda atoms: explain(model, atoms, ()).beta), QUICK)
    row = record["agreement"]["homo_population"]["all"]["beta"]
    row["spearman"]["mean"], row["gain_on_element"] = 0.1, {"mean": 0.1, "error": 0.01, "n": 1000}
    assert verdicts(record, "HOMO population, all sites")["Global attention"] == FAILS
    assert any("hardly at all, though better than the element" in sentence.text for sentence in sentences(record))


def test_a_planted_asymmetry_is_found():
    """The upstream rule puts molecules into a box, whose images break the symmetry of C60."""
    settings = dataclasses.replace(QUICK, n_costly=1)
    molecules = populated_structures(lambda atoms: np.ones(len(atoms)))[:2]
    good = validate([network()], molecules, settings)
    assert set(verdicts(good, "equivalent sites").values()) == {HOLDS}
    assert max(max(own.values()) for own in good["equivalence"]["exact"].values()) < EQUAL
    bad = validate([network(rule="upstream")], molecules, settings)
    assert FAILS in verdicts(bad, "equivalent sites").values()


def test_runs_are_compared():
    twins = validate([network(), network()], populated_structures(lambda a: np.arange(len(a)) + 1.0), QUICK)
    row = twins["stability"]["all"]["beta"]
    assert row["spearman"]["mean"] == pytest.approx(1) and row["top_overlap"]["mean"] == pytest.approx(1)
    assert len(twins["agreement"]["homo_population"]["all"]["beta"]["spearman"]["runs"]) == 2
    others = validate([network(), network(seed=1)], populated_structures(lambda a: np.arange(len(a)) + 1.0), QUICK)
    assert others["stability"]["all"]["beta"]["spearman"]["mean"] < 0.9
    assert verdicts(validate([network()], molecules_without_labels(), QUICK), "seeds")["There is one run only; give an "
        "ensemble (refattn train --ensemble K) to compare seeds."] == UNTESTED  # fmt: skip


def molecules_without_labels():
    return [molecule(name) for name in NAMES[:2]]


def test_without_populations_orbitals_are_not_tested():
    record = validate([network()], molecules_without_labels(), QUICK)
    assert record["agreement"] == {} and record["mae"] == [None]
    assert UNTESTED in verdicts(record, "orbitals").values()


def test_error_of_the_predictions():
    model, atoms = network(), molecules_without_labels()
    for one, value in zip(atoms, model.predict(atoms).value, strict=True):
        one.info["label"] = value + 0.5 * STD
    record = validate([model], atoms, QUICK)
    assert record["mae"] == pytest.approx([0.5 * STD])


def test_any_number_of_threads_and_the_costly_scores():
    settings = [Settings(scores=("occlusion", "removal"), n_costly=2, n_threads=n) for n in (1, 3)]
    found = [validate([network()], populated_structures(lambda a: np.arange(len(a)) + 1.0)[:4], s) for s in settings]
    assert found[0] == found[1]
    rows = found[0]["agreement"]["homo_population"]["all"]
    assert (rows["removal"]["spearman"]["n"], rows["beta"]["spearman"]["n"]) == (2, 4)


def test_refused():
    with pytest.raises(RunError, match="differ in their seed"):
        validate([network(), network(rule="upstream")], molecules_without_labels(), QUICK)
    with pytest.raises(DataError, match="no structure to validate with"):
        validate([network()], [], QUICK)
    left_out = []
    with pytest.raises(DataError, match="no structure to validate with"):
        validate([network()], [ase.Atoms("U")], QUICK, skip=lambda id, error: left_out.append(id))
    assert left_out == ["0"]


def test_without_populations_or_classes_a_structure_is_left_out(monkeypatch):
    """Water has no populations, ammonia no classes of sites, in the validation and in what `explain` finds."""

    def no_populations(atoms, method=""):
        if str(atoms.symbols) == "OH2":
            raise DataError("no populations")
        return {name: np.arange(len(atoms)) + 1.0 for name in POPULATIONS}

    def no_classes(atoms):
        if str(atoms.symbols) == "NH3":
            raise StructureError("no classes")
        return equivalent_sites(atoms)

    for module in (study, report):
        monkeypatch.setattr(module, "populations", no_populations)
        monkeypatch.setattr(module, "equivalent_sites", no_classes)
    structures = [molecule(name) for name in ("H2O", "NH3", "CH3OH")]
    left_out = []
    settings = dataclasses.replace(QUICK, orbitals=True)

    def skip(id, error):
        left_out.append((id, str(error)))

    cases, *_ = study.first_scores(network(), structures, settings, skip)
    wanted = [("0", "no populations"), ("1", "no classes")]
    assert (left_out, [len(case.atoms) for case in cases]) == (wanted, [6])
    left_out.clear()
    assert [found.id for found in report.findings(network(), structures, True, skip)] == ["2"]
    assert left_out == wanted
    with pytest.raises(StructureError, match="no classes"):
        study.first_scores(network(), structures[1:], settings, None)
