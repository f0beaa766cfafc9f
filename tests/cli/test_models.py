"""Models that ship: made of a run, known by name in every command; warming up; what is said of compiling."""

import dataclasses
import hashlib
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from click.testing import CliRunner
from small_data import label as label_of
from small_data import molecules, small_config, write_molecules

import refattn
import refattn.models
from refattn.cli.main import cli
from refattn.cli.train import Progress
from refattn.common import notices
from refattn.config import to_toml
from refattn.data.builtin import SETS
from refattn.data.sources.registry import open_source
from refattn.errors import DataError, RunError
from refattn.network.checkpoint import load_checkpoint
from refattn.prediction.predictor import Outside
from refattn.structures.batch import GraphBatch
from refattn.training.train import train

TOOLS = Path(__file__).parents[2] / "tools"
FACTS = tomllib.loads((TOOLS / "models.toml").read_text(encoding="utf-8"))
MEGABYTES = 25
# Of the built-in molecules those that molecules-orbitals was not trained on, the first 48.
HELD_OUT = (
    "915 1863 2168 4755 5128 6185 6392 6541 8683 8751 9331 9693 9802 9910 10653 12587 13076 13082 13102 13248 "
    "14199 15652 16312 16940 17191 17559 19775 20863 22576 25851 26482 26599 27010 27046 27075 29759 30117 31061 "
    "31543 34279 35100 35301 38537 40669 40873 43434 44563 45380 "
)
# Those with levels of B3LYP that molecules-b3lyp was not trained on, all 47.
HELD_OUT_B3LYP = (
    "6620 7141 8491 10881 14913 16681 16731 17191 18521 20998 22121 23201 32082 38719 41177 44178 53465 54403 54757 "
    "55642 56141 60015 64388 69366 71031 75023 76122 77582 79281 80733 81146 83438 83907 90321 93921 94814 96018 "
    "101121 102821 103113 105757 114275 120901 121466 124362 125019 129076"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    data = write_molecules(folder / "molecules.h5", n=100)
    train(small_config(data, epochs=1, seed=5), folder / "run", 1)
    return folder / "run"


def tool(name):
    """A module of tools/."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def shipped(run, tmp_path, monkeypatch):
    """A package with that run as the model `small`."""
    tool("make_model").pack(run, tmp_path / "small", FACTS["crystals"] | {"without": ["H2O"]}, [run])
    monkeypatch.setattr(refattn.models, "FOLDER", tmp_path)
    monkeypatch.setattr("refattn.cli.models.FOLDER", tmp_path)
    return tmp_path / "small"


def invoke(*words, status=0):
    result = CliRunner().invoke(cli, [*map(str, words)])
    assert result.exit_code == status, result.stderr or repr(result.exception)
    return result.stderr if status else result.stdout


def test_a_model_is_known_by_its_name(run, shipped, tmp_path):
    structures = molecules(4, seed=3)
    own, named = (refattn.load(name).predict(structures, coverage=0.5) for name in (run, "small"))
    for field in ("value", "distance", "lower", "upper"):
        assert np.array_equal(getattr(own, field), getattr(named, field)), field  # all training structures are kept
    assert refattn.load("small").checkpoints[0].split == ([], [], [])
    assert "spread" in invoke("info", "small")
    assert "no data of its own" in invoke("evaluate", "small", status=1)
    with pytest.raises(RunError, match="one of `refattn models`"):
        refattn.load("smaller")


def test_a_folder_of_structures_does_not_hide_a_model(run, shipped, tmp_path, monkeypatch):
    structures = molecules(2, seed=3)
    wanted = refattn.load("small").predict(structures).value
    (tmp_path / "work" / "small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    ase.io.write("small/one.xyz", structures[0])
    assert np.array_equal(refattn.load("small").predict(structures).value, wanted)
    assert "mean" in invoke("info", "small")
    Path("small/model.h5").write_bytes(b"")
    with pytest.raises(RunError, match="small/model.h5"):  # a run of that name comes first
        refattn.load("small")


def test_what_no_structure_was_like_in_training_is_said(run, shipped, tmp_path):
    """Of a run and of a model that ships, which keeps no split and no digests; predicted, explained or embedded."""
    usual, crystal = molecules(2, seed=4)
    crystal.set_cell([9.0, 9.0, 9.0])
    crystal.pbc = True
    large = ase.Atoms("C40", [[1.4 * k, 0, 0] for k in range(40)])
    for atoms, id in ((usual, "usual"), (crystal, "crystal"), (large, "large")):
        atoms.info = {"id": id}
    ase.io.write(tmp_path / "new.extxyz", [usual, crystal, large], format="extxyz")
    for name in (run, "small"):
        explain = ["explain", "--out", tmp_path / "out", "--no-pages", "--max-pictures", 0]
        for words in (["predict"], explain, ["embed", "--out", tmp_path / "vectors", "--no-sites"]):
            result = CliRunner().invoke(cli, [*map(str, [words[0], name, tmp_path / "new.extxyz", *words[1:]])])
            assert result.exit_code == 0, result.stderr or repr(result.exception)
            assert "2 of 3 structures lie outside of what the model was trained on" in result.stderr
            assert "1 such as large with 40 sites (training: " in result.stderr
            assert "1 such as crystal with periodic directions (training: all finite)" in result.stderr


def test_a_molecule_is_no_crystal():
    note = Outside(load_checkpoint(refattn.models.FOLDER / "crystals" / "model.h5"))
    for id, atoms in (("crystal", bulk("SiO", "rocksalt", a=4.6)), ("molecule", molecule("SiO"))):
        note.add([id], [atoms], GraphBatch.from_atoms(atoms, r_max=6.0))
    assert "1 of 2 structures lies outside" in note.notes()[0]
    assert "1 such as molecule with no periodic direction (training: all periodic)" in note.notes()[0]


def test_a_cell_in_other_units_is_said():
    """In pm or nm nothing has a neighbour, and everything has a prediction."""
    note = Outside(load_checkpoint(refattn.models.FOLDER / "crystals" / "model.h5"))
    salt = bulk("NaCl", "rocksalt", a=564.0)
    note.add(["salt"], [salt], GraphBatch.from_atoms(salt, r_max=6.0))
    assert "1 such as salt with no neighbours at all" in note.notes()[0]


def test_its_card_says_how_good_it_is(run, shipped):
    card = json.loads(invoke("models", "small", "--json"))
    metrics = json.loads((run / "metrics.json").read_text())
    assert card["errors"]["spread"]["test"] == metrics["test"]
    assert card["sha256"] == hashlib.sha256((shipped / "model.h5").read_bytes()).hexdigest()
    short, everything = invoke("models"), invoke("models", "small")
    assert f"MAE {metrics['test']['mae']:.4g} on 10 structures" in short and "not for" in short
    assert everything.startswith(short) and "[training]" in everything and card["sha256"] in everything
    seconds = f"{metrics['seconds']:.0f} s, {metrics['peak_memory_mb']:.0f} MB"
    assert f"in {seconds} (the last training alone; those that it began with: {seconds})" in everything
    assert "there are: small" in invoke("models", "none", status=1)
    (shipped / "card.json").write_text("{}")
    assert "cannot be read as a card" in invoke("models", status=1)


def test_its_card_says_how_many_labels_its_intervals_hold_and_the_error_without_a_formula(run, shipped, tmp_path):
    """Against predictions with intervals of the test structures, one by one; the card made again is the same."""
    images = {atoms.info["id"]: atoms for atoms in molecules(100)}
    test = [images[id] for id in load_checkpoint(run / "model.h5").split.test]
    labels = np.array([label_of(atoms) for atoms in test])
    result = refattn.load("small").predict(test, coverage=0.9)
    found = refattn.models.read_card("small")["errors"]["spread"]
    intervals = found["intervals"]
    assert intervals["held"] == np.mean((result.lower <= labels) & (labels <= result.upper))
    assert (intervals["n"], intervals["n_valid"], intervals["expected"]) == (10, 10, 10 / 11)
    rest = np.array([len(atoms) != 3 or 8 not in atoms.numbers or 6 in atoms.numbers for atoms in test])
    assert found["without"]["H2O"]["n"] == rest.sum()
    assert found["without"]["H2O"]["mae"] == pytest.approx(np.abs(result.value - labels)[rest].mean())
    assert "on the " in invoke("models") and "are not H2O" in invoke("models")
    card = (shipped / "card.json").read_bytes()
    again = tool("make_model")
    facts = FACTS["crystals"] | {"without": ["H2O"]}
    again.pack_card(shipped, facts, run.parent / "molecules.h5", None, [run])
    assert (shipped / "card.json").read_bytes() == card
    other = write_molecules(tmp_path / "other.h5", n=100, seed=1)
    with pytest.raises(DataError, match="give the data set and the split of its training"):
        again.pack_card(shipped, facts, other, None, [run])


def test_its_card_says_how_good_its_recipe_is_on_what_is_new(run, shipped, tmp_path):
    """As the results of benchmarks/new_materials.py say; the test at random is no such error."""
    again = tool("make_model")
    again.NEW = tmp_path / "results"
    again.NEW.mkdir()
    for split, error in (("nothing", 0.1), ("size", 0.2), ("Fe", 0.3)):
        found = {"target": "y", "unit": "eV", "train": {"n": 50}, "valid": {"mae": 0.11}, "test": {"mae": error}}
        (again.NEW / f"set_{split}.json").write_text(json.dumps(found))
    facts = FACTS["crystals"] | {"without": ["H2O"], "new_materials": "set"}
    again.pack_card(shipped, facts, run.parent / "molecules.h5", None, [run])
    said = invoke("models")
    assert "its recipe with 50 structures, y (eV): MAE 0.3 on structures with Fe, an element never seen" in said
    assert "(more of the same: 0.11); 0.2 on larger structures (more of the same: 0.11)\n" in said
    facts["new_materials"] = ""
    again.pack_card(shipped, facts, run.parent / "molecules.h5", None, [run])
    assert refattn.models.read_card("small")["on_new"] == [] and "its recipe" not in invoke("models")


def test_a_split_that_does_not_ship_is_drawn_again(run, shipped, tmp_path, monkeypatch):
    """For a network that begins with a model that ships: by its name, without its run."""
    for split in ("small", run / "split.json"):
        words = [split, run.parent / "molecules.h5", tmp_path / f"{Path(split).name}.out", "spread"]
        monkeypatch.setattr("sys.argv", ["restrict_split.py", *map(str, words)])
        tool("restrict_split").main()
    assert (tmp_path / "small.out").read_bytes() == (tmp_path / "split.json.out").read_bytes()


def test_a_training_starts_from_it(run, shipped, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(
        to_toml(small_config(run.parent / "molecules.h5", epochs=1, learning_rate=1e-9, learning_rate_min=0.0))
    )
    invoke("train", config, "--init", "small", "--out", tmp_path / "tuned", "--threads", 1)
    tuned, own = (refattn.load(path).checkpoints[0].params.vector for path in (tmp_path / "tuned", "small"))
    np.testing.assert_allclose(tuned, own, atol=1e-6)


def test_what_ships_fits_and_has_a_card():
    names = refattn.models.model_names()
    assert {*names} <= {*FACTS}
    files = [path for name in names for path in (refattn.models.FOLDER / name).iterdir()]
    assert sum(path.stat().st_size for path in files) < MEGABYTES * 1e6
    for name in names:
        card = refattn.models.read_card(name)
        assert {key: card[key] for key in FACTS[name]} == FACTS[name]
        model = refattn.models.FOLDER / name / "model.h5"
        assert card["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
        assert load_checkpoint(model).extent.periodic.tolist() == [name != "crystals", name == "crystals"]


def test_the_page_of_the_models_says_what_their_cards_do():
    """Errors, and how many labels the intervals hold, in the table of docs/data.md: in the cards' order of targets."""
    page = (TOOLS.parent / "docs" / "data.md").read_text(encoding="utf-8")
    for name in refattn.models.model_names():
        rows = page[page.index(f"| `{name}` |") :].splitlines()
        for row, found in zip(rows, refattn.models.read_card(name)["errors"].values(), strict=False):
            _, _, _, mae, mean, held, n, _ = (cell.strip() for cell in row.split("|"))
            intervals = found["intervals"]
            assert held == f"{100 * intervals['held']:.1f} ± {100 * intervals['both']:.1f} %", row
            assert n == f"{intervals['n']:,}", row
            for shown, known in ((mae, found["test"]["mae"]), (mean, found["composition_mae"])):
                assert shown == f"{known:.{len(shown.partition('.')[2])}f}", row


def builtin_molecules(numbers):
    """Records of QM9's molecules of these numbers, from the built-in set."""
    ids = {f"gdb_{number}" for number in numbers.split()}
    records = [record for record in open_source(SETS["molecules"].path) if record.id in ids]
    assert len(records) == len(ids)
    return records


def test_the_model_of_molecules_finds_what_gfn2_xtb_does():
    """On molecules that it was not trained on: errors and orbitals as its card says, and nine intervals in ten hold."""
    name, held_out = "molecules-orbitals", builtin_molecules(HELD_OUT)
    card = refattn.models.read_card(name)
    found = refattn.load(name).predict([record.atoms for record in held_out], coverage=0.9)
    for k, target in enumerate(found.target):
        label = np.array([record.labels[target] for record in held_out])
        assert np.abs(found.value[:, k] - label).mean() < 1.5 * card["errors"][target]["test"]["mae"]
        assert ((found.lower[:, k] <= label) & (label <= found.upper[:, k])).mean() > 0.8
        share = [record.arrays[f"{target.removeprefix('xtb_')}_population"] for record in held_out]
        apart = [np.abs(beta[:, k] - p).sum() / 2 for beta, p in zip(found.attention, share, strict=True)]
        assert np.mean(apart) < 1.5 * card["errors"][target]["attention"]["test"]["network"]["total_variation"]


def test_the_model_of_b3lyp_is_as_good_as_its_card_says():
    """On molecules that it was not trained on, and nine intervals in ten hold."""
    name, held_out = "molecules-b3lyp", builtin_molecules(HELD_OUT_B3LYP)
    card = refattn.models.read_card(name)
    found = refattn.load(name).predict([record.atoms for record in held_out], coverage=0.9)
    homo, lumo = (np.array([record.labels[target] for record in held_out]) for target in ("homo", "lumo"))
    for target, label in {"homo": homo, "lumo": lumo, "gap": lumo - homo}.items():
        k = found.target.index(target)
        assert np.abs(found.value[:, k] - label).mean() < 1.5 * card["errors"][target]["test"]["mae"], target
        assert ((found.lower[:, k] <= label) & (label <= found.upper[:, k])).mean() > 0.75, target


def test_the_model_of_crystals_knows_enthalpies_of_formation():
    """Measured ones, from which PBE differs by a tenth of an eV an atom and more; an element has none."""
    model = refattn.load("crystals")
    sites = tool("crystal_sites")
    compounds = sites.compounds()
    options = {"scores": (), "target": "e_form", "dtype": "float32"}
    explained = {one.name: refattn.explain(model, one.atoms, **options) for one in compounds}
    for one in compounds:
        measured = one.enthalpy * sites.KJ_PER_MOL / one.n_atoms
        assert explained[one.name].value == pytest.approx(measured, abs=0.3), one.name
    oxygen = {
        name: explained[name].site_value[explained[name].z == 8].mean() for name in ("Li2O", "Li2O2", "MgO", "TiO2")
    }
    assert max(oxygen, key=oxygen.get) == "Li2O2"  # a bond between two of them is worth less


def test_the_model_of_fullerenes_knows_c60_and_where_orbitals_are():
    """HOMO and LUMO of C60 by the set's density functional, and Hückel's orbitals of cages that are less symmetric."""
    model = refattn.load("fullerenes")
    found = model.predict([molecule("C60")])
    values = dict(zip(found.target, found.value[0], strict=True))
    for name, known, mean in (("homo", -6.400, -5.76), ("lumo", -3.679, -4.53)):  # of FullereneNet, and of all of it
        assert abs(values[name] - known) < abs(mean - known) / 2, name  # its levels are among the outermost
    populations = tool("huckel_populations").populations
    for atoms in ase.io.read(SETS["fullerene"].path.with_name("cages.extxyz"), ":"):
        if len(atoms) in (50, 70):
            attention = model.predict([atoms]).attention[0]
            for k, share in enumerate(populations(atoms).values()):
                apart = [np.abs(beta - share).sum() / 2 for beta in (attention[:, k], 1 / len(atoms))]
                assert apart[0] < 0.7 * apart[1], (len(atoms), k)


def test_warming_up(run, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(to_toml(small_config("no.h5", attention={"spread": "population"})))
    result = CliRunner().invoke(cli, ["warmup", str(config), str(run), "--threads", "1"])
    assert result.exit_code == 0, result.stderr or repr(result.exception)
    assert result.stderr.count(": ready after ") == 2
    assert "no such file" in invoke("warmup", tmp_path / "none", status=1)


@pytest.mark.parametrize(
    ("data", "training"),
    [
        ({"split_by": "group", "split_group": "_", "valid_by": "group", "weight": "w"}, {}),
        ({}, {"loss": "cross_entropy"}),
    ],
)
def test_whatever_is_configured_can_be_compiled(tmp_path, data, training):
    config = small_config("no.h5", **training)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **data))
    (tmp_path / "config.toml").write_text(to_toml(config))
    result = CliRunner().invoke(cli, ["warmup", str(tmp_path / "config.toml"), "--threads", "1"])
    assert result.exit_code == 0 and ": ready after " in result.stderr, result.stderr


def test_a_model_that_ships_is_no_training_to_go_on_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["verify", "crystals"], ["train", "--out", "crystals", "--resume"]):
        assert "crystals: a model that ships is no training to go on with" in invoke(*words, status=1)
    assert "`refattn models`" not in invoke("train", "--out", "elsewhere", "--resume", status=1)


KERNELS = """
import sys
from click.testing import CliRunner
from numba.core.dispatcher import Dispatcher
from refattn.cli.main import cli


def invoke(*words):
    result = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr


def variants():
    modules = [module for name, module in sys.modules.items() if name.startswith("refattn")]
    kernels = {kernel for module in modules for kernel in vars(module).values() if isinstance(kernel, Dispatcher)}
    return {f"{kernel.py_func.__qualname__} {types}" for kernel in kernels for types in kernel.signatures}


config, run, file, out = sys.argv[1:]
invoke("warmup", config, run, "--threads", "1")
warm = variants()
assert len(warm) > 20
invoke("predict", run, file, "--coverage", "0.5", "--threads", "1")
invoke("explain", run, file, "--out", f"{out}/why", "--scores", "all", "--no-pages", "--max-pictures", "0")
invoke("embed", run, file, "--out", f"{out}/vectors", "--threads", "1")
invoke("train", config, "--out", f"{out}/run", "--threads", "1")
print(*sorted(variants() - warm), sep="\\n", end="")
"""


def test_after_warming_up_no_command_compiles(run, tmp_path):
    """In a process of its own: other tests have compiled the same kernels in this one."""
    config = tmp_path / "config.toml"
    config.write_text(to_toml(small_config(run.parent / "molecules.h5", epochs=1)))
    ase.io.write(tmp_path / "two.extxyz", molecules(2, seed=3), format="extxyz")
    words = [sys.executable, "-c", KERNELS, config, run, tmp_path / "two.extxyz", tmp_path]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_first_epoch_is_no_measure_of_the_time_left():
    lines = []
    status = type("Status", (), {"line": lambda self, text: lines.append(text), "update": lambda self, text: None})()
    progress = Progress(status, "")
    progress({"epoch": 1, "batch": 0, "n_epochs": 3, "n_batches": 1, "units": ["eV"]})
    numbers = dict.fromkeys(("loss", "train_mae", "valid_mae", "structures_per_second"), 1.0)
    for epoch in (1, 2, 3):
        progress({"epoch": epoch, **numbers})
    assert "left" not in lines[0] and all("left" in line for line in lines[1:])
    assert lines[0] == "epoch   1/3  loss 1.0000  MAE train 1 valid 1 eV  1 structures/s"


def test_an_epoch_has_the_error_of_every_target_in_its_unit():
    lines = []
    status = type("Status", (), {"line": lambda self, text: lines.append(text), "update": lambda self, text: None})()
    progress = Progress(status, "")
    progress({"epoch": 1, "batch": 0, "n_epochs": 12, "n_batches": 1, "units": ["eV", ""]})
    targets = {"homo": {"valid_mae": 0.25}, "label": {"valid_mae": 0.5}}
    progress({"epoch": 1, "loss": 2.0, "structures_per_second": 9.0, "targets": targets})
    assert lines == ["epoch   1/12  loss 2.0000  MAE valid homo 0.25 eV, label 0.5  9 structures/s"]


def test_compiling_is_said_once(monkeypatch):
    said = []
    monkeypatch.setattr(notices, "_listeners", [])
    notices.listen(said.append)
    notices.watch_compilation.__wrapped__()
    from numba.core import event

    kernel = type("Kernel", (), {"py_func": refattn.load})()
    for _ in range(2):
        with event.trigger_event("numba:compile", data={"dispatcher": kernel}):
            pass
    assert notices.COMPILING in said
