"""The benchmarks: what they count, that they time nothing that is wrong, and the tables made of their results."""

import importlib.util
import json
import re
import sys
import types
from pathlib import Path

import bench_scaling
import click
import first_commands
import numpy as np
import pytest
import report
from click.testing import CliRunner
from report_tables import TABLES, number
from scipy.spatial import cKDTree
from small_data import write_molecules

from refattn.benchmarks import synthetic, worker
from refattn.benchmarks.driver import Stopped, Worker, environment_for, interpreters, start
from refattn.benchmarks.measures import operations, summary
from refattn.benchmarks.peers import PEERS, Peer, peers_for
from refattn.benchmarks.peers.batch import Batch
from refattn.benchmarks.peers.own import Own
from refattn.benchmarks.ratios import ratios
from refattn.cli.main import cli
from refattn.config import ModelConfig
from refattn.errors import OutputError

ROOT = Path(__file__).parents[2]
TINY = {"width": 16, "n_layers": 1, "n_heads": 4, "global_width": 8, "head_width": 8, "embedding_width": 8}


# ---- one large structure ---------------------------------------------------------------------------------------------


def test_a_made_up_structure_is_predicted_and_measured(capsys):
    bench_scaling.predict_one("refattn", 300)
    row = json.loads(capsys.readouterr().out)
    assert row["sites"] == 300 and row["edges"] > 900
    assert row["graph_seconds"] > 0 and row["seconds"] > 0 and row["peak_mb"] > 0


@pytest.mark.parametrize("n_sites", [1, 2, 10_000])
def test_atoms_of_a_made_up_structure_keep_their_distance(n_sites):
    atoms = synthetic.cluster(n_sites)
    assert len(atoms) == n_sites and cKDTree(atoms.positions).count_neighbors(cKDTree(atoms.positions), 1.0) == n_sites


def test_first_commands_are_commands_and_kernels_are_counted(tmp_path):
    for words in first_commands.commands(tmp_path).values():
        command = cli.get_command(click.Context(cli), words[0])
        command.make_context(words[0], words[1:])  # the options are known
    found = first_commands.measured(["models"], tmp_path)
    assert found["kernels"] == 0 and found["processor_s"] > 0


# ---- counts and statistics -------------------------------------------------------------------------------------------

COUNTED = {"width": 4, "n_radial": 3, "n_layers": 2, "n_heads": 2, "embedding_width": 5, "global_width": 6}
READ_OUT = 5 * (4 * 6 + 6 * 6 + 6 * 6) + 2 * (6 * 7 + 7)  # multiply-adds of 5 sites and of 2 structures


def test_operations_of_scann_plus_against_a_count_by_hand():
    # 9 edges: distance and angle once; in a layer the filter and the key. 5 sites: embedding; in a layer two filter
    # products, the query, two of the residual block.
    first = 9 * (3 * 4 + 3 * 4)
    deep = 5 * 5 * 4 + 2 * (9 * (16 + 16) + 5 * (16 + 16 + 16 + 16 + 16)) + READ_OUT
    alike = 5 * (5 * 4 + 16 + 16 + 16)  # in inference: embedding, query and filter of the first layer
    found = operations(ModelConfig(variant="scann+", head_width=7, **COUNTED), 2, 5, 9)
    assert found == {"forward": 2 * (first + deep - alike), "step": 2 * (2 * first + 3 * deep)}
    assert found["step"] == 13188


def test_operations_of_scann_against_a_count_by_hand():
    # The filter's inputs are the Gaussians, in every layer, so that it has no gradient by them.
    first = 2 * 9 * 3 * 4
    deep = 5 * 5 * 4 + 2 * (9 * 16 + 5 * (16 + 16 + 16)) + READ_OUT
    found = operations(ModelConfig(variant="scann", head_width=7, **COUNTED), 2, 5, 9)
    assert found == {"forward": 2 * (first + deep - 5 * (5 * 4 + 16)), "step": 2 * (2 * first + 3 * deep)}
    ring = operations(ModelConfig(variant="scann", head_width=7, ring=True, **COUNTED), 2, 5, 9)
    assert ring["forward"] >= 2 * (first + deep)  # there sites of an element differ


def test_with_many_edges_the_key_is_counted_as_head_products():
    model = ModelConfig(variant="scann", width=16, n_heads=2, n_layers=1, residual=False)
    few, many = (operations(model, 1, 2, n)["forward"] for n in (1000, 1001))
    assert many - few == 2 * (16 * 20 + 2 * 2 * 16)  # of an edge: the filter, and 2 H D instead of D D


def test_summary_is_median_quartiles_and_rate():
    found = summary([0.4, 0.1, 0.2, 0.3, 10.0], 6)
    assert found["median"] == 0.3
    assert found["quartiles"] == [0.2, 0.4]
    assert found["n"] == 5
    assert found["structures_per_second"] == pytest.approx(20)


def row(peer, threads, step, predict, **forms):
    forms = forms or {"step": step, "predict": predict}
    values = {name: {"median": seconds} for name, seconds in forms.items()}
    return {"peer": peer, "threads": threads, "forms": values, "step": {"median": step}, "predict": {"median": predict}}


def test_ratios_take_the_best_peer_at_its_best_number_of_threads():
    rows = [row("refattn", 1, 4.0, 2.0), row("refattn", 2, 2.0, 1.0), row("torch-ragged", 1, 5.0, 3.0)]
    rows += [row("torch-ragged", 2, 6.0, 2.5), row("jax-ragged", 2, 7.0, 9.0)]
    rows.append(row("tensorflow", 2, 20.0, 8.0, train_on_batch=20.0, step_function=24.0, call=8.0, model_predict=9.0))
    found = {name: (value["ratio"], value["peer"]) for name, value in ratios(rows).items()}
    assert found["training step, 2 threads, against the authors'"] == (10.0, "tensorflow, 2 threads")
    assert found["training step, 2 threads, against the best framework"] == (2.5, "torch-ragged, 1 thread")
    assert found["training step, 1 thread, against the best framework's 1 thread"] == (1.25, "torch-ragged, 1 thread")
    assert found["training step, 2 threads over 1 thread"] == (2.0, None)
    assert found["inference, 2 threads, against the authors' compiled call"] == (8.0, "tensorflow, 2 threads")
    assert found["inference, 2 threads, against the authors' predict"] == (9.0, "tensorflow, 2 threads")
    assert found["inference, 2 threads, against the best framework"] == (2.5, "torch-ragged, 2 threads")


# ---- peers and workers -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source():
    return synthetic.source(synthetic.network(**TINY), n_structures=6)


class WrongOutput(Own):
    def predict(self, batch):
        return super().predict(batch) * np.float32(1.001)


class NotFinite(Own):
    def predict(self, batch):
        return super().predict(batch) * np.float32(np.nan)


class WrongGradient(Own):
    def __init__(self, config, *arguments):
        super().__init__(synthetic.network(**TINY, dropout=0.0), *arguments)

    def gradient(self, batch):
        loss, grads = super().gradient(batch)
        grads["layer0.query_w"][0, 0] += 0.01
        return loss, grads


@pytest.mark.parametrize("wrong", [WrongOutput, NotFinite, WrongGradient])
def test_a_peer_with_other_numbers_is_not_timed(source, monkeypatch, wrong):
    monkeypatch.setitem(sys.modules, "wrong_peer", types.ModuleType("wrong_peer"))
    sys.modules["wrong_peer"].Peer = wrong
    monkeypatch.setitem(PEERS, "wrong", Peer("wrong_peer", "Peer"))
    batch = Batch.of(source.dataset.graphs, source.known, source.label)
    with pytest.raises(worker.NotTheSame, match="not timed"):
        worker.build({"peer": "wrong", "threads": 1}, source, batch)


def test_refattn_itself_is_held_to_the_reference(source):
    batch = Batch.of(source.dataset.graphs, source.known, source.label)
    peer, difference = worker.build({"peer": "refattn", "threads": 2}, source, batch)
    peer.pool.close()
    assert 0 < difference < worker.SAME


def test_scann_has_no_peers_with_identities():
    assert "torch-identities" in peers_for("scann+")
    assert "torch-identities" not in peers_for("scann")
    assert peers_for("scann", ["jax-ragged"]) == ["refattn", "jax-ragged"]


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    return str(write_molecules(tmp_path_factory.mktemp("benchmarks") / "set.h5", 20))


@pytest.fixture
def order(molecules):
    order = {"peer": "refattn", "threads": 1, "data": molecules, "target": "spread", "variant": "scann", "n_batches": 2}
    return order | {"batch_size": 4, "set": [f"{name}={value}" for name, value in TINY.items()]}


def test_a_worker_times_steps_predictions_and_epochs(order):
    process = Worker(order)
    assert process.ready["sizes"][0][0] == 4
    assert len(process.measure("step", 0, 3)) == 3
    assert len(process.measure("predict", 1, 2)) == 2
    assert process.ask({"what": "epoch", "n": 10, "times": 1})["seconds"][0] > 0
    assert process.ask({"what": "memory"})["peak_mb"] > 10
    process.close()
    assert process.process.returncode == 0


def test_a_worker_that_is_killed_is_noticed(order):
    process = Worker(order)
    process.process.kill()
    process.process.wait()
    with pytest.raises(Stopped, match="ended"):
        process.ask({"what": "memory"})
    process.close()


def test_a_worker_that_cannot_start_says_why(order, tmp_path):
    order["data"] = str(tmp_path / "none.h5")
    said = []
    found, problem = start(order, {}, said.append)
    assert found is None
    assert "none.h5" in problem
    assert problem in said[0]
    assert start(order, {"refattn": str(tmp_path / "python")}, said.append)[0] is None


def test_interpreters_are_given_by_peer_or_family():
    assert interpreters(["torch=a", "jax-ragged=b=c"]) == {"torch": "a", "jax-ragged": "b=c"}
    for word in ("torch", "torch=", "torc=a", "=a"):
        with pytest.raises(ValueError, match="PEER=PATH"):
            interpreters([word])


# ---- refattn bench ---------------------------------------------------------------------------------------------------


def bench(*arguments):
    return CliRunner().invoke(cli, ["bench", *map(str, arguments)])


def missing_peer():
    """A peer whose framework is not installed here."""
    for name in ("tensorflow", "torch-padded", "jax-ragged"):
        if importlib.util.find_spec(PEERS[name].needs) is None:
            return name
    return pytest.skip("every framework is installed")


def test_bench_compares_what_is_installed_and_names_the_rest(molecules):
    name = missing_peer()
    sizes = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    data = ["--data", molecules, "--target", "spread", "--batch-size", 4, "--rounds", 1, "--threads", 1]
    result = bench(*data, *sizes, "--peers", "refattn", "--peers", name, "--json")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert [row["peer"] for row in record["results"]] == ["refattn"]
    assert "pip install" in record["missing"][name]
    assert 0 < record["results"][0]["step"]["fraction_of_sgemm"] < 1
    text = bench(*data, *sizes, "--peers", name)
    assert text.exit_code == 0, text.stderr
    assert "1.00x" in text.stdout
    assert f"{name}: not installed" in text.stdout


@pytest.mark.parametrize(
    ("status", "arguments", "words"),
    [
        (2, ["--peers", "abacus"], "abacus"),
        (2, ["--python", "abacus=python"], "abacus"),
        (2, ["--threads", "1000000"], "cores"),
        (2, ["--rounds", "0"], "rounds"),
        (1, ["--data", "none.h5"], "none.h5"),
        (1, ["--set", "breadth=3"], "breadth"),
        (1, ["--set", "width=9"], "n_heads"),
    ],
)
def test_bench_refuses_in_a_sentence(status, arguments, words):
    result = bench(*arguments)
    assert result.exit_code == status
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_bench_refuses_an_unknown_label(molecules):
    result = bench("--data", molecules, "--target", "colour")
    assert result.exit_code == 1
    assert "colour" in result.stderr


# ---- report ----------------------------------------------------------------------------------------------------------

TEXT = """# A title

<!-- benchmark: begin cold_start -->
stale
<!-- benchmark: end cold_start -->

between
<!-- benchmark: begin epoch -->
kept
<!-- benchmark: end epoch -->
end
"""
MACHINE = {"processor": "Abacus 3", "cores": 2, "versions": {"python": "3.11", "numpy": "2.4", "numba": "0.68"}}
COLD = {"machine": MACHINE, "help": {"median": 0.123}, "first_step": {"refattn": {"first": 12.34, "later": 1.5}}}


def test_report_fills_what_it_has_and_is_idempotent():
    once, left = report.filled(TEXT, {"cold_start": COLD})
    assert left == ["epoch"]
    assert "2 CPU cores (Abacus 3), Python 3.11, NumPy 2.4, Numba 0.68. `refattn --help` takes 0.12 s." in once
    assert "| **refattn** | 12.3 | 1.5 |" in once
    assert "stale" not in once
    assert "kept" in once
    assert once.startswith("# A title\n") and once.endswith("end\n") and "\nbetween\n" in once
    assert report.filled(once, {"cold_start": COLD})[0] == once


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("end cold_start", "end epoch"),
        ("begin epoch", "begin cold_start"),
        ("cold_start", "warm_start"),
        ("<!-- benchmark: end epoch -->\n", ""),
    ],
)
def test_report_refuses_markers_that_do_not_fit(old, new):
    with pytest.raises(report.ReportError):
        report.filled(TEXT.replace(old, new), {})


def test_report_refuses_results_that_are_no_json(tmp_path):
    (tmp_path / "epoch.json").write_text("{", encoding="utf-8")
    with pytest.raises(report.ReportError, match=r"epoch\.json"):
        report.read_results(tmp_path)


def test_the_pages_have_markers_of_known_tables():
    names = {page.name: [found[1] for found in report.MARK.findall(page.read_text("utf-8"))] for page in report.PAGES}
    assert set(names["benchmarks.md"]) == set(TABLES) - {"neighbours"}
    assert set(names["README.md"]) <= {"ratios"}


def test_the_pages_are_up_to_date():
    results = report.read_results(report.ROOT / "results" / "cpu")
    assert all(report.fill(page, results, write=False) for page in report.PAGES), "run benchmarks/report.py"


def test_no_table_of_a_page_is_empty():
    pages = [path for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md") for path in ROOT.glob(pattern)]
    assert len(pages) > 20
    empty = re.compile(r"^\|(?: ?:?-+:? ?\|)+ *\n(?!\|)", re.MULTILINE)
    assert empty.search("| a |\n| --- |\n\n") and not empty.search("| a |\n| ---: |\n| 1 |\n")
    assert not [path.name for path in pages if empty.search(path.read_text(encoding="utf-8"))]


def test_numbers_have_three_digits_and_no_exponent():
    shown = [number(value) for value in (0.01234, 1.0, 12.345, 123.4, 98765.0, 5e5, None)]
    assert shown == ["0.0123", "1", "12.3", "123", "98765", "500000", "-"]


def test_another_interpreter_has_a_cache_that_nobody_else_may_write(tmp_path, monkeypatch):
    """Kernels are kept as pickles: whoever can put one there runs code."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert "NUMBA_CACHE_DIR" not in environment_for(None)
    folder = Path(environment_for("/usr/bin/other")["NUMBA_CACHE_DIR"])
    assert folder.parent.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o770)
    with pytest.raises(OutputError, match="others may write it"):
        environment_for("/usr/bin/other")
