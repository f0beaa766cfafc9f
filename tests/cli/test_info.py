"""refattn info on data sets written by hand: every number counted by hand, the picture looked at by its pixels."""

import json

import ase
import numpy as np
import pytest
from click.testing import CliRunner
from handmade import CONFIG, chains, line, write
from matplotlib.image import imread

from refattn.cli.info import info
from refattn.cli.main import cli
from refattn.data.store import Record
from refattn.data.writer import DatasetWriter
from refattn.errors import OutputError, RefattnError
from refattn.report.overview import N_BINS, histogram
from refattn.structures.batch import GraphBatch


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "set.h5", chains(), licence="CC0")


def facts_of(path):
    result = CliRunner().invoke(info, [str(path), "--json"])
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_facts(path):
    """Chains of 3, 1, 2 and 4 sites: the ends have one neighbour, the site that is alone none."""
    facts = facts_of(path)
    assert (facts["structures"], facts["sites"], facts["edges"], facts["skipped"]) == (4, 10, 12, 0)
    assert facts["licence"] == "CC0"
    assert facts["elements"] == {"C": 8, "O": 2}
    assert facts["sites_per_structure"] == {
        "min": 1, "mean": 2.5, "max": 4, "histogram": {"1": 1, "2": 1, "3": 1, "4": 1}
    }  # fmt: skip
    assert facts["edges_per_site"] == {"min": 0, "mean": 1.2, "max": 2, "histogram": {"0": 1, "1": 6, "2": 3}}
    assert facts["sites_without_neighbours"] == 1
    assert facts["distance"] == {"unit": "Å", "min": 1.5, "mean": 1.5, "max": 1.5}
    assert facts["solid_angle"]["unit"] == "sr"
    assert facts["labels"]["homo"] == {
        "unit": "eV", "known": 2, "mean": 0.5, "std": 2.0, "min": -1.5, "median": 0.5, "max": 2.5
    }  # fmt: skip
    assert facts["labels"]["gap"]["known"] == 1
    assert facts["arrays"] == {"population": []}
    text = CliRunner().invoke(info, [str(path)]).stdout
    assert "sites_without_neighbours: 1" in text
    assert "first_skipped" not in text


def test_empty_and_skipped(tmp_path):
    with DatasetWriter(tmp_path / "set.h5", CONFIG) as writer:
        writer.skip("bad", "was ill")
    facts = facts_of(tmp_path / "set.h5")
    assert (facts["structures"], facts["sites_per_structure"], facts["distance"]) == (0, {}, {"unit": "Å"})
    assert (facts["skipped"], facts["first_skipped"]) == (1, {"bad": "was ill"})
    result = CliRunner().invoke(cli, ["info", str(tmp_path / "set.h5"), "--plot", str(tmp_path / "set.png")])
    assert result.exit_code == 1
    assert "nothing to draw" in result.stderr
    assert not (tmp_path / "set.png").exists()


@pytest.mark.parametrize(
    "counts", [[5], [0, 0, 3], list(range(100)), [1, 200], [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]]
)
def test_histogram_counts_everything_once(counts):
    found = histogram(np.array(counts))
    assert sum(found.values()) == len(counts)
    assert len(found) <= N_BINS
    for text, n in found.items():
        first, _, last = text.partition("-")
        assert n == sum(int(first) <= count <= int(last or first) for count in counts)
    assert histogram(np.array([], dtype=int)) == {}


def test_picture(path, tmp_path):
    picture = tmp_path / "set.png"
    result = CliRunner().invoke(info, [str(path), "--plot", str(picture)])
    assert result.exit_code == 0
    assert "structures: 4" in result.stdout
    assert "drawn" in result.stderr
    pixels = imread(picture)
    height, width = pixels.shape[:2]
    assert 600 < height < width < 2000
    for row, colour in ((slice(0, height // 2), (0, 114, 178)), (slice(height // 2, height), (213, 94, 0))):
        share = np.all(np.abs(255 * pixels[row, :, :3] - colour) < 2, axis=2).mean()
        assert share > 0.02  # bars in the colour of structures above, of labels below
    assert sorted(file.name for file in tmp_path.iterdir()) == ["set.h5", "set.png"]


def test_picture_of_many_labels_and_elements(tmp_path):
    rng = np.random.default_rng(0)
    pairs = [line(f"s{i}", 1 + i % 5, {f"y{j}": rng.normal() for j in range(1 + i % 11)}) for i in range(40)]
    for number, (record, graph) in enumerate(pairs):
        record.atoms.numbers[:] = 1 + number
        graph.z[:] = 1 + number
    path = write(tmp_path / "set.h5", pairs)
    assert CliRunner().invoke(info, [str(path), "--plot", str(tmp_path / "set.png")]).exit_code == 0
    assert imread(tmp_path / "set.png").shape[0] > 1000  # three rows


def test_what_cannot_be_drawn(path, tmp_path):
    for arguments, message in (
        (["--plot", "a.png"], "is no data set"),
        ([tmp_path, "--plot", "a.png"], "run"),
        ([path, "--plot", tmp_path / "a.pdf"], "PNG"),
        ([path, "--plot", path], "PNG"),
        ([path, "--plot", tmp_path / "none" / "a.png"], "cannot be written"),
    ):
        error = CliRunner().invoke(info, list(map(str, arguments))).exception
        assert isinstance(error, RefattnError)
        assert message in str(error)
    twin = tmp_path / "set.png"
    twin.hardlink_to(path)
    assert isinstance(CliRunner().invoke(info, [str(path), "--plot", str(twin)]).exception, OutputError)
    assert [file.name for file in tmp_path.glob("*.part")] == []


def test_picture_of_a_set_without_edges(tmp_path):
    atoms = [ase.Atoms("He"), ase.Atoms("Ne")]
    with DatasetWriter(tmp_path / "set.h5", CONFIG) as writer:
        records = [Record(str(n), one, {}, {}) for n, one in enumerate(atoms)]
        writer.add(records, [GraphBatch.from_atoms(one) for one in atoms])
    result = CliRunner().invoke(cli, ["info", str(tmp_path / "set.h5"), "--plot", str(tmp_path / "set.png")])
    assert result.exit_code == 0, result.stderr or repr(result.exception)
    assert imread(tmp_path / "set.png").shape[0] > 300
