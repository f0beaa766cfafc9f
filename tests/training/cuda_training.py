"""Training, prediction and explanation with --device cuda, in Numba's simulator or on a GPU.

NUMBA_ENABLE_CUDASIM=1 pytest tests/training/cuda_training.py; see test_cuda.py
"""

import dataclasses
import json

import numpy as np
import pytest
import tolerances
from ase.io import write as write_atoms
from click.testing import CliRunner
from simulator import smaller_config
from small_data import molecules, write_molecules

from refattn.cli.main import cli
from refattn.common.loss import LOSSES, Loss
from refattn.common.mpi import Ranks
from refattn.config import to_toml
from refattn.data.store import read_dataset
from refattn.data.taught_attention import taught_attention
from refattn.errors import ConfigError, DeviceError, TrainingError
from refattn.explanation.explain import COSTLY, explain
from refattn.network import cuda_inference
from refattn.network.checkpoint import load_checkpoint
from refattn.network.inference import predict_rows
from refattn.network.params import initialise
from refattn.ops import load_backend
from refattn.ops.cuda import toolchain
from refattn.prediction.embedding import embed
from refattn.prediction.predictor import load
from refattn.structures.batch import GraphBatch
from refattn.training import cuda_stepper
from refattn.training.adam import Adam
from refattn.training.average import Average
from refattn.training.cuda_shards import CudaShardStepper
from refattn.training.stepper import check_ranks, make_stepper
from refattn.training.targets import Targets
from refattn.training.train import Interrupted, train

# The CPU kernels, which take a minute to compile, are held to the reference by other tests.
CUDA, REFERENCE = load_backend("cuda"), load_backend("reference")
RING = {"ring": True, "features": "cgcnn"}
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_molecules(tmp_path_factory.mktemp("data") / "data.h5", 10)


@pytest.fixture(scope="module")
def config(data):
    """Two epochs of two batches, the second smaller, in float32, with dropout of everything."""
    return smaller_config(data, epochs=2, batch_size=6)


@pytest.fixture(scope="module")
def runs(data, config, tmp_path_factory):
    """The run of the reference, and that of `refattn train --device cuda`: (directory, directory)."""
    folder = tmp_path_factory.mktemp("runs")
    file = folder / "config.toml"
    file.write_text(to_toml(config))
    for device in ("reference", "cuda"):
        result = command("train", file, "--out", folder / device, "--device", device, "--threads", 1)
        assert result.exit_code == 0, result.output
    return folder / "reference", folder / "cuda"


def command(*words):
    return CliRunner().invoke(cli, [str(word) for word in words])


def state(run):
    """Parameters and moments of the last checkpoint of a run."""
    last = load_checkpoint(run / "last.h5")
    return {"parameters": last.params.vector, "m": last.state["adam_m"], "v": last.state["adam_v"]}


def check_same(run, other):
    """The same training: parameters to rounding; the moments, which are small differences, to somewhat more."""
    for (name, mine), theirs in zip(state(run).items(), state(other).values(), strict=True):
        tolerance = tolerances.NETWORK_32 if name == "parameters" else 20 * tolerances.NETWORK_32
        assert np.abs(mine - theirs).max() <= tolerance * np.abs(theirs).max(), name


# ---- training ----------------------------------------------------------------------------------------------------


def test_two_epochs_are_those_of_the_reference(runs):
    check_same(*reversed(runs))
    reference, cuda = ([json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in runs)
    for mine, theirs in zip(cuda, reference, strict=True):
        for name in ("loss", "penalty", "train_mae", "valid_mae", "valid_rmse", "learning_rate"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-5), name
    summary = json.loads((runs[1] / "metrics.json").read_text())
    assert summary["device"] == "cuda"
    assert_close(summary["test"], json.loads((runs[0] / "metrics.json").read_text())["test"])
    assert {path.name for path in runs[1].iterdir()} == {path.name for path in runs[0].iterdir()}


@pytest.mark.parametrize(("first", "second"), [("reference", "cuda"), ("cuda", "reference")])
def test_a_run_goes_on_on_another_device(config, runs, tmp_path, first, second):
    """Stopped within the second epoch; the rest is the other device's."""
    calls = []
    with pytest.raises(Interrupted, match="epoch 2, batch 1 of 2"):
        train(config, tmp_path / "run", 1, device=first, stop=lambda: calls.append(1) or len(calls) == 3)
    result = command("train", "--out", tmp_path / "run", "--resume", "--device", second)
    assert result.exit_code == 0, result.output
    check_same(tmp_path / "run", runs[0])
    assert load_checkpoint(tmp_path / "run" / "last.h5").state["place"]["epoch"] == 3


def test_an_ensemble_in_tf32_names_its_device(config, tmp_path):
    """The simulator has no TF32; what is tested is the way there."""
    short = dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=1, batch_size=8))
    file = tmp_path / "config.toml"
    file.write_text(to_toml(short))
    result = command("train", file, "--out", tmp_path / "run", "--device", "cuda-tf32", "--ensemble", 2)
    assert result.exit_code == 0, result.output
    members = [json.loads((tmp_path / "run" / f"member_{k}" / "metrics.json").read_text()) for k in range(2)]
    assert [member["device"] for member in members] == ["cuda-tf32"] * 2


def batch_and_steppers(data, dtype, loss, model, devices=(CUDA, REFERENCE), targets=("spread",), taught=(), n_shards=1):
    """The rows of a batch, and a new Stepper on each device. Of several targets, not all labels are known."""
    config = smaller_config(data, model, loss=loss, dtype=dtype, batch_size=7, gpu_shards=n_shards)
    weights = np.linspace(1, 2, len(targets)).tolist()
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, target=targets, target_weight=weights),
        training=dataclasses.replace(
            config.training, attention=dict.fromkeys(taught, "population"), attention_weight=weights
        ),
    )
    dataset = read_dataset(data).with_directions()
    ring = np.random.default_rng(0).integers(0, 2, (len(dataset.graphs.z), 2)).astype(float)
    graphs = dataclasses.replace(dataset.graphs, ring=ring)
    label = np.random.default_rng(1).normal(size=(10, len(targets))).astype(dtype)
    label[:, 2:] = label[::2, 1:2] = np.nan
    population = np.random.default_rng(2).normal(size=len(dataset.graphs.z))
    population[: dataset.graphs.site_ptr[3]] = np.nan
    dataset.arrays["population"] = population
    share = taught_attention(dataset, config)
    weight = np.random.default_rng(3).uniform(0.5, 2, 10).astype(dtype)
    wanted = Targets(label, None if share is None else share.astype(dtype), weight)
    steppers = []
    for ops in devices:
        params = initialise(config.model, 0, dtype)
        adam = Adam(params.vector, params.decay_mask(), config.training)
        steppers.append(make_stepper(config, ops, graphs, dataset.id, wanted, params, adam, Average(params, 0.9)))
    return np.array([8, 1, 0, 5, 2, 9, 4]), steppers


def one_step(stepper, rows):
    """The totals after a step on the batch `rows`."""
    stepper.begin([rows], [1e-3])
    stepper.step(0)
    return stepper.settle()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "model",
    [{"attention_dropout": 0.3, "n_angular": 3}, RING | {"variant": "scann", "readout": "published"}],
    ids=["scann+", "scann"],
)
def test_a_step_of_float64_is_that_of_the_reference(data, loss, model):
    rows, (cuda, reference) = batch_and_steppers(data, "float64", loss, model)
    assert one_step(cuda, rows) == pytest.approx(one_step(reference, rows), rel=1e-5)
    assert cuda.adam.step == reference.adam.step == 1
    expected = reference.gradient().vector
    assert np.abs(cuda.gradient().vector - expected).max() <= tolerances.NETWORK * np.abs(expected).max()
    # a first step of Adam is the rate times the gradient's sign, where it is not next to nothing
    clear = np.abs(expected) > 1e-6 * np.abs(expected).max()
    assert np.abs(cuda.params.vector - reference.params.vector)[clear].max() <= 1e-8
    assert np.abs(cuda.average.vector - reference.average.vector)[clear].max() <= 1e-8


@pytest.mark.parametrize(
    ("model", "targets", "taught"),
    [
        ({"variant": "scann"}, ("spread", "some", "none"), ()),
        ({"variant": "scann", "head": "additive"}, ("spread", "some"), ("some",)),
        ({"variant": "scann", "readout": "sum"}, ("spread",), ("spread",)),
    ],
)
def test_a_step_of_several_terms_is_that_of_the_reference(data, model, targets, taught):
    """All labels of a target are known, some, or none; of three structures of the batch attention is not taught."""
    rows, (cuda, reference) = batch_and_steppers(data, "float64", "rmse", model, (CUDA, REFERENCE), targets, taught)
    np.testing.assert_allclose(one_step(cuda, rows), one_step(reference, rows), rtol=1e-12)
    expected = reference.gradient().vector
    assert np.abs(cuda.gradient().vector - expected).max() <= tolerances.NETWORK * np.abs(expected).max()


@pytest.mark.parametrize(
    ("n_shards", "loss", "model", "targets", "taught"),
    [
        (2, "rmse", {"attention_dropout": 0.3}, ("spread",), ()),
        (3, "cross_entropy", RING | {"variant": "scann"}, ("spread",), ()),
        (3, "rmse", {"variant": "scann"}, ("spread", "some", "none"), ()),
        (9, "rmse", {"variant": "scann", "head": "additive"}, ("spread", "some"), ("some",)),
    ],
)
def test_a_step_of_shards_is_that_of_the_reference(data, n_shards, loss, model, targets, taught):
    rows, (cuda, reference) = batch_and_steppers(
        data, "float64", loss, model, (CUDA, REFERENCE), targets, taught, n_shards
    )
    assert isinstance(cuda, CudaShardStepper)
    for _ in range(2):
        np.testing.assert_allclose(one_step(cuda, rows), one_step(reference, rows), rtol=1e-5)
        expected = reference.gradient().vector
        assert np.abs(cuda.gradient().vector - expected).max() <= tolerances.NETWORK * np.abs(expected).max()


def test_a_shard_whose_loss_is_not_finite_names_its_structures(data):
    for targets in (("spread",), ("spread", "some")):
        rows, (cuda,) = batch_and_steppers(data, "float64", "mse", {}, (CUDA,), targets, n_shards=3)
        cuda.known[0][5, 0] = np.inf
        with pytest.raises(TrainingError, match="batch 1: the loss is not finite in the structures m5, m2"):
            one_step(cuda, rows)


def test_two_ranks_on_one_gpu_are_refused(data, monkeypatch):
    config = smaller_config(data, gpu_shards=2)
    ranks = Ranks()
    ranks.size = 2
    monkeypatch.setattr(ranks, "gather", lambda items: 2 * items)
    monkeypatch.setattr(toolchain, "identity", lambda: b"one")
    with pytest.raises(ConfigError, match="ranks 0 and 1 compute on the same GPU; give each its own by"):
        check_ranks(config, CUDA, ranks)
    check_ranks(config, REFERENCE, ranks)
    monkeypatch.setattr(ranks, "gather", lambda items: [b"another", *items])
    check_ranks(config, CUDA, ranks)


def test_two_runs_give_the_same_bits(data):
    rows, steppers = batch_and_steppers(data, "float32", "rmse", {"attention_dropout": 0.1}, (CUDA, CUDA))
    steppers[1].replays.capture = False
    for stepper in steppers:
        one_step(stepper, rows)
    assert np.array_equal(steppers[0].params.vector, steppers[1].params.vector)


def test_totals_and_average_go_on_where_the_epoch_was_left(data):
    """The second of two batches alone, begun with what the first one left, on both devices. The average moves by
    1 - (1 + t) / (10 + t) of the way after step t."""
    rows, steppers = batch_and_steppers(data, "float64", "rmse", {})
    epoch = [rows, rows], [1e-3, 1e-3]
    for stepper in steppers:
        average = stepper.params.vector.copy()
        stepper.begin(*epoch)
        stepper.step(0)
        totals = stepper.settle()
        average += 9 / 11 * (stepper.params.vector - average)
        stepper.begin(*epoch, 1, totals)
        assert np.array_equal(stepper.settle(), totals)
        stepper.step(1)
        assert (stepper.settle() > totals).all()
        assert stepper.adam.step == 2
        average += 9 / 12 * (stepper.params.vector - average)
        np.testing.assert_allclose(stepper.average.vector, average, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("ops", [REFERENCE, CUDA], ids=["reference", "cuda"])
def test_a_loss_that_the_table_lacks_is_refused_on_every_device(monkeypatch, data, ops):
    monkeypatch.delitem(LOSSES, "huber")
    with pytest.raises(ConfigError, match="there is no loss 'huber'; choose one of rmse, mse, mae, cross_entropy"):
        batch_and_steppers(data, "float64", "huber", {}, (ops,))


def quartic_error(output, label, delta):
    error = output - label
    return error * error * error * error, 4 * error * error * error


def test_an_entry_of_the_table_is_all_that_a_new_loss_takes(monkeypatch, data):
    rows, (known,) = batch_and_steppers(data, "float64", "mse", {}, (REFERENCE,))
    one_step(known, rows)
    monkeypatch.setitem(LOSSES, "mse", Loss(quartic_error, LOSSES["mse"].reduce))
    rows, (cuda, reference) = batch_and_steppers(data, "float64", "mse", {})
    assert one_step(cuda, rows) == pytest.approx(one_step(reference, rows), rel=1e-5)
    expected = reference.gradient().vector
    assert np.abs(cuda.gradient().vector - expected).max() <= tolerances.NETWORK * np.abs(expected).max()
    assert not np.allclose(expected, known.gradient().vector, rtol=0.1)


# ---- prediction and explanation ----------------------------------------------------------------------------------


def test_predictions_are_the_reference_s_for_any_cut(monkeypatch, data, runs):
    checkpoint = load_checkpoint(runs[0] / "model.h5")
    model, dataset, rows = checkpoint.config.model, read_dataset(data), np.array([4, 4, 0, 9])
    monkeypatch.setattr(cuda_inference, "EDGES_TO_PREDICT", 40)
    for chosen in (rows, rows[:0]):
        mine, theirs = (
            predict_rows(checkpoint.params, model, ops, dataset.graphs, chosen) for ops in (CUDA, REFERENCE)
        )
        for a, b in zip(mine, theirs, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert np.abs(a - b).max(initial=0) <= tolerances.NETWORK_32 * np.abs(b).max(initial=1)


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    path = tmp_path_factory.mktemp("structures") / "two.xyz"
    write_atoms(path, molecules(10)[0:4:3])
    return path


def both_devices(*words):
    """What a command prints as JSON with --device reference and with --device cuda."""
    results = [command(*words, "--json", "--device", device) for device in ("reference", "cuda")]
    assert [result.exit_code for result in results] == [0, 0], results[1].output
    return [[json.loads(line) for line in result.stdout.splitlines()] for result in results]


def assert_close(mine, theirs, place=""):
    """The same structure of dicts and lists, with numbers that agree to the rounding of float32."""
    if isinstance(theirs, dict):
        assert mine.keys() == theirs.keys(), place
        for name in theirs:
            assert_close(mine[name], theirs[name], f"{place}/{name}")
    elif isinstance(theirs, list):
        assert len(mine) == len(theirs), place
        for number, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            assert_close(a, b, f"{place}/{number}")
    elif isinstance(theirs, float):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-4), place
    else:
        assert mine == theirs, place


def test_predict_and_evaluate_answer_as_on_the_reference(runs, structures):
    reference, cuda = both_devices("predict", runs[0], structures, "--uncertainty")
    assert_close(cuda, reference)
    outputs = [command("evaluate", runs[0], "--json", "--device", device) for device in ("reference", "cuda")]
    assert_close(*(json.loads(output.stdout) for output in reversed(outputs)))


def test_explanations_are_those_of_the_reference(runs):
    reference, cuda = (
        explain(load(runs[0], device), molecules(1), scores=tuple(COSTLY)) for device in ("reference", "cuda")
    )
    for field in dataclasses.fields(reference[0]):
        mine, theirs = getattr(cuda[0], field.name), getattr(reference[0], field.name)
        if isinstance(theirs, np.ndarray | float):
            assert np.shape(mine) == np.shape(theirs), field.name
            assert np.abs(mine - theirs).max() <= 50 * tolerances.NETWORK_32 * np.abs(theirs).max(), field.name
            assert isinstance(mine, type(theirs)), field.name


def test_embeddings_are_those_of_the_reference(runs):
    reference, cuda = (embed(load(runs[0], device), molecules(3)) for device in ("reference", "cuda"))
    for name in ("structure_vector", "value"):
        mine, theirs = getattr(cuda, name), getattr(reference, name)
        assert np.abs(mine - theirs).max() <= tolerances.NETWORK_32 * np.abs(theirs).max(), name
    for name in ("site_embedding", "beta", "z"):
        for mine, theirs in zip(getattr(cuda, name), getattr(reference, name), strict=True):
            assert np.abs(mine - theirs).max() <= tolerances.NETWORK_32 * np.abs(theirs).max(), name


# ---- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*(invalid value|overflow|divide by zero):RuntimeWarning")
def test_a_loss_that_is_not_finite_names_epoch_batch_and_structures(data, tmp_path):
    message = r"epoch 1, batch 2: the loss is not finite in one of the structures m\d+.*no model was saved"
    with pytest.raises(TrainingError, match=message):
        train(
            smaller_config(data, learning_rate=1e30, learning_rate_min=1e30, batch_size=6, epochs=1),
            tmp_path / "run",
            device="cuda",
        )


def no_memory(*arguments, **keywords):
    raise toolchain.OutOfMemory


def test_out_of_memory_says_which_batch_would_fit(monkeypatch, config, tmp_path):
    monkeypatch.setattr(toolchain.Replay, "__call__", no_memory)
    monkeypatch.setattr(toolchain, "free_memory", lambda: 20_000)
    with pytest.raises(DeviceError, match=r"a batch of 6 structures takes about .* GB free; set .*batch_size to \d or"):
        train(config, tmp_path / "run", device="cuda")
    shards = dataclasses.replace(config, training=dataclasses.replace(config.training, gpu_shards=2))
    with pytest.raises(DeviceError, match=r"a shard of 3 structures takes .* set training.batch_size to [24] or less"):
        train(shards, tmp_path / "shards", device="cuda")
    monkeypatch.setattr(toolchain, "free_memory", lambda: 100)
    with pytest.raises(DeviceError, match="not even one structure would fit; use --device cpu"):
        train(config, tmp_path / "other", device="cuda")
    monkeypatch.setattr(toolchain, "free_memory", lambda: None)
    with pytest.raises(DeviceError, match=r"more than there is; set training\.batch_size to less"):
        train(config, tmp_path / "third", device="cuda")


def test_predictions_take_smaller_shards_where_memory_is_short(monkeypatch, data, runs):
    checkpoint, limits = load_checkpoint(runs[0] / "model.h5"), []
    model, cut = checkpoint.config.model, GraphBatch.cut

    def short(graphs, rows, *limit):
        limits.extend(limit)
        return no_memory() if len(limits) < 3 else cut(graphs, rows, *limit)

    monkeypatch.setattr(GraphBatch, "cut", short)
    monkeypatch.setattr(cuda_inference, "EDGES_TO_PREDICT", 6400)
    graphs, rows = read_dataset(data).graphs, np.arange(2)
    output = predict_rows(checkpoint.params, model, CUDA, graphs, rows).prediction
    assert limits == [6400, 800, 100]
    expected = predict_rows(checkpoint.params, model, REFERENCE, graphs, rows).prediction
    assert np.abs(output - expected).max() <= tolerances.NETWORK_32 * np.abs(expected).max()


def test_out_of_memory_for_the_data_set_is_one_sentence(monkeypatch, config, data, runs, tmp_path):
    monkeypatch.setattr(cuda_stepper.DeviceDataset, "of", no_memory)
    with pytest.raises(DeviceError, match="the data set does not fit into the memory of the GPU"):
        train(config, tmp_path / "run", device="cuda")
    result = command("evaluate", runs[0], "--device", "cuda")
    assert result.exit_code == 1
    assert "refattn: the structures do not fit into the memory of the GPU" in result.output


def test_info_lists_the_device():
    facts = json.loads(command("info", "--json").stdout)
    assert facts["devices"] == ["cpu", "reference", "cuda"]
