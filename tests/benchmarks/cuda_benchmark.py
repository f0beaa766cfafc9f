"""benchmarks/gpu.py in Numba's simulator: its stages on a tiny data set, its driver, its prediction.

NUMBA_ENABLE_CUDASIM=1 pytest tests/benchmarks/cuda_benchmark.py; see test_cuda.py
"""

import functools
import json

import gpu
import gpu_predict
import gpu_report
import gpu_stages
import numpy as np
import pytest
from ledger import Entry
from small_data import write_molecules

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_molecules(tmp_path_factory.mktemp("data") / "data.h5", 10)


def stage(name, data, variant="", report=lambda result: None):
    """The result of a stage, which has to be one that JSON can hold."""
    return json.loads(json.dumps(getattr(gpu_stages, name)(gpu_stages.Setting(str(data), None, True, variant, report))))


@pytest.mark.parametrize("name", ["operations_parity", "gradient_check", "same_bits", "rates"])
def test_stages_succeed(data, name):
    result = stage(name, data)
    assert result["ok"], result
    assert result.get("error") is None


def test_a_stage_sees_what_is_wrong(monkeypatch, data):
    def wrong(function):
        return functools.wraps(function)(lambda **given: tuple(1.01 * x for x in function(**given)))

    cuda = gpu_stages.load_backend("cuda")
    monkeypatch.setattr(cuda, "swish_forward", wrong(cuda.swish_forward))
    result = stage("operations_parity", data)
    assert not result["ok"]
    assert result["error"].startswith("swish, float64 differs by")


def test_differences_that_are_not_numbers_are_infinite():
    a, b = {"x": np.array([1.0, 2.0])}, {"x": np.array([1.0, 4.0])}
    assert gpu_stages.difference(a, b) == 0.5
    assert gpu_stages.difference({"x": np.array([1.0, np.nan])}, b) == np.inf


def test_the_step_is_timed_beside_peers_and_their_failures_are_named(monkeypatch, data):
    def broken(setting, peer, batch_size):
        if peer == "torch-ragged":
            raise RuntimeError("no\nkernel")
        return {"seconds": 0.5, "error": None}

    monkeypatch.setattr(gpu_stages, "new_peer", lambda setting, peer: peer[0])
    monkeypatch.setattr(gpu_stages, "peer_step", broken)
    reports = []
    result = stage("step", data, "scann", reports.append)
    assert result["steps"]["refattn cuda, 2"]["seconds"] > 0
    assert result["steps"]["torch-ragged, 2"]["error"] == "RuntimeError: no kernel"
    assert (result["ok"], result["error"]) == (False, "failed: torch-ragged, 2")
    assert len(reports) == 1 + len(gpu_stages.PEERS)
    text = gpu_report.markdown({"data": "d", "quick": False, "stages": {"step scann": {**result, "result": result}}})
    assert "| torch-ragged, 2 | RuntimeError: no kernel | - |" in text
    ratio = 0.5 / result["steps"]["refattn cuda, 2"]["seconds"]
    assert f"Batch 2: the quickest of PyTorch is torch-identities-compiled, {ratio:.2f} times refattn's" in text


def test_every_stage_is_recorded(monkeypatch, data, tmp_path, capsys):
    """One real process, one that is out of time, one without a GPU, one for which no time is left."""
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    monkeypatch.setitem(gpu.LIMITS, "train", 1)
    monkeypatch.setattr(gpu, "SHORTEST", 1)
    arguments = [str(data), "--out", str(tmp_path), "--quick", "--stages", "device", "train", "epoch"]
    assert gpu.main(arguments) == 1
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["stages"]["device"]["result"]["name"] == "Numba's simulator"
    assert record["stages"]["train"]["error"] == "took longer than the 1 s that it had"
    assert record["stages"]["epoch"] == {"ok": None, "error": "needs a GPU"}
    assert "| epoch | needs a GPU | 0.0 |" in (tmp_path / "gpu.md").read_text()
    monkeypatch.setattr(gpu, "TOTAL", 0)
    assert gpu.main([*arguments[:5], "device"]) == 1
    assert "no time was left of 0 s" in (tmp_path / "gpu.md").read_text()
    assert "device: ok" in capsys.readouterr().out


def test_a_small_step_for_the_sanitizer(capsys):
    assert gpu.main(["--sanitize"]) == 0
    assert "losses [" in capsys.readouterr().out


def test_a_prediction_is_the_longest_of_bytes_operations_and_launch():
    for bytes_, operations, expected in ((4.8e9, 0, 1e-3), (0, 67e9, 1e-3), (8, 8, 1e-6)):
        entry = Entry("", "product", bytes_, operations, ())
        assert gpu_predict.predicted(entry, 1, 1, 1e-6) == pytest.approx(expected)


def test_the_published_step_is_counted_and_no_number_is_called_measured():
    text = gpu_predict.prediction()
    assert "No number on this page was measured" in text
    ledger, size = gpu_predict.counted("scann+", 128)
    assert (size.n_real, size.n_sites, size.n_edges) == (128, 2432, 10240)
    names = [entry.name for entry in ledger.entries if entry.kind == "kernel"]
    once = ("locate", "gather_sites", "gather_edges", "fill_up", "keys", "loss", "sums", "adam", "advance")
    assert [names.count(name) for name in once] == [1] * len(once)
    assert names.count("local_attention_forward") == names.count("updated_geometry_backward") == 7
    assert f"| SCANN+ | 128 | 2,432 | 10,240 | {len(ledger.entries)} |" in text
    # the products by hand: seven layers with six products of an edge and fifteen of a site, and a few others
    by_hand = 2 * 128**2 * 7 * (6 * size.n_edges + 15 * size.n_sites)
    assert by_hand < sum(entry.operations for entry in ledger.entries) < 1.1 * by_hand
