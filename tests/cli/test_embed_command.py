"""refattn embed: files hold what refattn.embed says, maps are its projections; and what is refused."""

import csv
import json
import sys
import types

import ase.io
import h5py
import numpy as np
import pytest
from ase.build import molecule
from click.testing import CliRunner
from matplotlib.image import imread
from small_data import molecules

import refattn
from refattn.cli.main import cli
from refattn.network.checkpoint import save_checkpoint
from refattn.report.map_pictures import GREY, OWN, by_colour_bar, by_element, element_groups, limits
from refattn.report.maps import MapOptions, files_of
from refattn.report.projection import Layout

# The file of structures holds eight digits.
EXACT = 1e-6


def structures():
    """Rattled molecules, every third without a label."""
    found = molecules(20)
    for n, atoms in enumerate(found):
        atoms.info["id"] = f"m {n}"
        if n % 3:
            atoms.info["gap"] = float(n)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    """A model, structures, and what `refattn embed` makes of them."""
    folder = tmp_path_factory.mktemp("embed")
    save_checkpoint(folder / "model.h5", model.checkpoint)
    ase.io.write(folder / "set.extxyz", structures(), format="extxyz")
    run(folder, "set.extxyz", "out")
    return folder


def invoke(folder, file, out, *options):
    arguments = ["embed", folder / "model.h5", folder / file, "--out", folder / out, "--threads", 1, *options]
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def run(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.stderr or repr(result.exception)
    return result


def refused(status, *arguments):
    """The message; nothing may be left of what was begun."""
    result = invoke(*arguments)
    assert result.exit_code == status, repr(result.exception)
    assert result.stderr.count("\n") == 1 or status == 2
    folder, _, out, *_ = arguments
    assert not (folder / out).is_dir() or not list((folder / out).iterdir())
    return result.stderr


def rows_from(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def xy_from(rows):
    return np.array([[float(row["x"]), float(row["y"])] for row in rows])


# ---- files ---------------------------------------------------------------------------------------------------------


def test_embedding_h5(folder, model):
    wanted = refattn.embed(model, structures(), n_threads=1)
    with h5py.File(folder / "out" / "embedding.h5") as file:
        assert (file.attrs["format"], file.attrs["version"]) == ("refattn-embedding", 1)
        assert (file.attrs["target"], file.attrs["unit"]) == ("gap", "eV")
        assert all(name in file.attrs["layout"] for group in file.values() for name in group)
        found = {name: file[f"structures/{name}"][()] for name in file["structures"]}
        beta, sites = file["sites/beta"][()], file["sites/site_embedding"][()]
    assert found["id"].astype(str).tolist() == wanted.id
    assert found["label"].tolist() == pytest.approx([n if n % 3 else np.nan for n in range(20)], nan_ok=True)
    np.testing.assert_allclose(found["value"], wanted.value, rtol=0, atol=EXACT)
    np.testing.assert_allclose(found["structure_vector"], wanted.structure_vector, rtol=0, atol=EXACT)
    np.testing.assert_allclose(beta, np.concatenate(wanted.beta), rtol=0, atol=EXACT)
    np.testing.assert_allclose(sites, np.concatenate(wanted.site_embedding), rtol=0, atol=EXACT)
    np.testing.assert_array_equal(found["site_ptr"], np.cumsum([0, *map(len, wanted.z)]))
    np.testing.assert_array_equal(found["z"], np.concatenate(wanted.z))


def test_maps_are_projections_of_the_vectors(folder):
    """By a singular value decomposition here, and by the axes that the file keeps."""
    maps = {"structures": rows_from(folder / "out" / "map.csv"), "sites": rows_from(folder / "out" / "site_map.csv")}
    with h5py.File(folder / "out" / "embedding.h5") as file:
        for name, data in (("structures", "structures/structure_vector"), ("sites", "sites/site_embedding")):
            x, pca = file[data][()], file[f"pca/{name}"]
            u, singular, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
            sign = np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])
            xy = xy_from(maps[name])
            np.testing.assert_allclose(xy, (u * singular)[:, :2] * sign, rtol=0, atol=1e-9)
            np.testing.assert_allclose(xy, (x - pca["mean"][()]) @ pca["axes"][()].T, rtol=0, atol=1e-12)
            np.testing.assert_allclose(pca["variance_fraction"], (singular**2 / (singular**2).sum())[:2], rtol=1e-9)


def test_tables(folder, model):
    wanted = refattn.embed(model, structures(), n_threads=1)
    rows, sites = rows_from(folder / "out" / "map.csv"), iter(rows_from(folder / "out" / "site_map.csv"))
    assert [row["id"] for row in rows] == wanted.id
    assert [row["gap (eV)"] for row in rows] == [f"{n:.1f}" if n % 3 else "" for n in range(20)]
    for n, (row, atoms) in enumerate(zip(rows, structures(), strict=True)):
        assert int(row["sites"]) == len(atoms)
        assert float(row["predicted gap (eV)"]) == pytest.approx(wanted.value[n], abs=EXACT)
        for i, symbol in enumerate(atoms.symbols):
            site = next(sites)
            assert (site["id"], int(site["site"]), site["element"]) == (atoms.info["id"], i, symbol)
            assert float(site["beta"]) == pytest.approx(wanted.beta[n][i], abs=EXACT)
    assert next(sites, None) is None


def test_the_same_bits_for_any_number_of_threads(folder):
    run(folder, "set.extxyz", "two", "--threads", 2)
    for name in ("map.csv", "site_map.csv", "structures.png", "sites.png"):
        assert (folder / "out" / name).read_bytes() == (folder / "two" / name).read_bytes(), name


def test_parts_are_the_whole_in_turns(folder):
    """Of one file every third structure; its vectors do not depend on who else is embedded."""
    with h5py.File(folder / "out" / "embedding.h5") as file:
        ids, vectors = file["structures/id"].asstr()[:], file["structures/structure_vector"][()]
    for k in range(3):
        run(folder, "set.extxyz", f"part_{k}", "--part", f"{k + 1}/3")
        with h5py.File(folder / f"part_{k}" / "embedding.h5") as file:
            assert file["structures/id"].asstr()[:].tolist() == ids[k::3].tolist()
            np.testing.assert_allclose(file["structures/structure_vector"][()], vectors[k::3], rtol=0, atol=EXACT)
    assert "4/3" in refused(2, folder, "set.extxyz", "none", "--part", "4/3")


def test_a_sample_of_the_sites(folder):
    """A part of all, in their order, at the same places, and the same one again."""
    for out in ("some", "again"):
        run(folder, "set.extxyz", out, "--max-points", 30, "--site-colour", "attention")
    key = [(row["id"], row["site"], row["x"]) for row in rows_from(folder / "out" / "site_map.csv")]
    some = [(row["id"], row["site"], row["x"]) for row in rows_from(folder / "some" / "site_map.csv")]
    assert len(some) == 30 and some == sorted(some, key=key.index)
    for name in ("site_map.csv", "sites.png"):
        assert (folder / "some" / name).read_bytes() == (folder / "again" / name).read_bytes()


def test_without_sites_and_as_json(folder):
    result = run(folder, "set.extxyz", "plain", "--no-sites", "--colour", "size", "--json")
    assert {path.name for path in (folder / "plain").iterdir()} == {"embedding.h5", "map.csv", "structures.png"}
    summary = json.loads(result.stdout)
    n_sites = sum(map(len, structures()))
    assert (summary["structures"], summary["sites"], summary["left_out"]) == (20, n_sites, [])
    assert (summary["target"], summary["unit"], summary["map"]) == ("gap", "eV", "pca")
    first, second = summary["variance_fraction"].pop("structures")
    assert 0 < second <= first < first + second <= 1 and not summary["variance_fraction"]
    assert f"{100 * first:.1f} % and" in run(folder, "set.extxyz", "plain", "--no-sites").stdout


def test_one_atom_is_a_map_too(folder):
    """No variance, one colour, one point."""
    ase.io.write(folder / "atom.extxyz", ase.Atoms("C"), format="extxyz")
    run(folder, "atom.extxyz", "atom")
    assert xy_from(rows_from(folder / "atom" / "map.csv")).tolist() == [[0, 0]]
    assert {path.name for path in (folder / "atom").iterdir()} == set(files_of("", MapOptions()))


# ---- UMAP ----------------------------------------------------------------------------------------------------------


class Doubled:
    """In the place of umap.UMAP: twice the first two entries of a vector."""

    def __init__(self, n_neighbors, random_state, n_jobs):
        assert (random_state, n_jobs) == (0, 1) and n_neighbors <= 15

    def fit_transform(self, x):
        return 2 * x[:, :2].astype(np.float32)


def test_umap(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Doubled))
    result = run(folder, "set.extxyz", "umap", "--map", "umap", "--json", "--max-points", 30)
    assert "variance_fraction" not in json.loads(result.stdout)
    with h5py.File(folder / "umap" / "embedding.h5") as file:
        x = file["structures/structure_vector"][()]
        assert "pca" not in file
    np.testing.assert_allclose(xy_from(rows_from(folder / "umap" / "map.csv")), 2 * x[:, :2], rtol=1e-6)
    assert len(rows_from(folder / "umap" / "site_map.csv")) == 30
    ase.io.write(folder / "few.extxyz", structures()[:3], format="extxyz")
    assert "UMAP of 3 points" in refused(1, folder, "few.extxyz", "few", "--map", "umap")


def test_without_umap(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    assert "refattn[umap]" in refused(1, folder, "set.extxyz", "none", "--map", "umap")
    assert not (folder / "none").exists()


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_what_is_refused(folder):
    (folder / "file").write_text("")
    assert "file: cannot be made" in refused(1, folder, "set.extxyz", "file")
    assert "no such file" in refused(1, folder, "none.extxyz", "none")
    assert "is not one of" in refused(2, folder, "set.extxyz", "none", "--colour", "luck")
    ase.io.write(folder / "bare.extxyz", molecule("H2O"), format="extxyz")
    assert "no structure has the label gap" in refused(1, folder, "bare.extxyz", "bare", "--colour", "label")
    (folder / "own").mkdir()
    (folder / "own" / "map.csv").symlink_to(folder / "set.extxyz")
    assert "is the input" in invoke(folder, "set.extxyz", "own").stderr
    (folder / "blocked" / "map.csv").mkdir(parents=True)
    assert "map.csv: cannot be written" in invoke(folder, "set.extxyz", "blocked").stderr
    assert not list((folder / "blocked").glob("*.part"))


def test_bad_structures_are_one_sentence_or_left_out(folder):
    """Files appear complete or not at all."""
    good, bad = molecule("H2O"), molecule("H2O")
    bad.positions[1] = bad.positions[0]
    good.info["id"], bad.info["id"] = "good", "bad"
    ase.io.write(folder / "bad.extxyz", [good, bad], format="extxyz")
    assert "bad" in refused(1, folder, "bad.extxyz", "bad")
    result = run(folder, "bad.extxyz", "bad", "--skip-bad", "--json")
    assert "left out bad" in result.stderr and "1 structure, 1 left out, 3 sites" in result.stderr
    assert json.loads(result.stdout)["left_out"] == ["bad"]
    ase.io.write(folder / "worse.extxyz", [bad], format="extxyz")
    assert "there is no structure to map" in invoke(folder, "worse.extxyz", "worse", "--skip-bad").stderr
    assert not list((folder / "worse").iterdir())


# ---- pictures ------------------------------------------------------------------------------------------------------


def test_pictures_are_one_column_wide_and_not_blank(folder):
    for name in ("structures.png", "sites.png"):
        pixels = imread(folder / "out" / name)
        assert abs(pixels.shape[1] - 8.5 / 2.54 * 300) <= 1
        assert len(np.unique(pixels @ [1, 256, 65536, 0])) > 50
        assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1], :3] == 1).all()


def test_elements_without_a_colour_of_their_own_share_grey():
    z = np.repeat([6, 78, *range(20, 30)], np.arange(12, 0, -1))
    (others, grey, members), *named = element_groups(z)
    assert (others, grey) == (0, GREY) and set(z[members]) == {26, 27, 28, 29}
    assert [number for number, _, _ in named] == [6, 78, *range(20, 26)]
    assert sorted(colour for _, colour, _ in named) == sorted(OWN.values()) and named[0][1] == OWN[6]
    assert sum(len(members) for _, _, members in named) + len(members) == len(z)


def test_limits_of_colours():
    assert limits(np.array([2.0, 2, 2])) == (1.98, 2.02)
    assert limits(np.array([0, 0])) == (-0.01, 0.01)
    assert limits(np.array([0.0] * 99 + [1])) == (0, 1)
    low, high = limits(np.append(np.arange(100.0), 1e6))
    assert low == pytest.approx(2) and high == pytest.approx(98)


def test_pictures_with_long_names_and_many_elements(tmp_path):
    layout = Layout(np.random.default_rng(0).normal(size=(60, 2)), ("UMAP 1", "UMAP 2"))
    by_colour_bar(tmp_path / "long.png", layout, np.full(60, -1e4), 4 * "a long $name_ " + "(kcal/mol)")
    by_element(tmp_path / "many.png", layout, np.arange(60) + 1)
    for name in ("long.png", "many.png"):
        pixels = imread(tmp_path / name)
        edges = pixels[[0, -1], :, :3], pixels[:, [0, -1], :3]
        assert all((edge == 1).all() for edge in edges)


def test_a_file_for_chemiscope(folder):
    """Its map is that of the folder, with every site."""
    run(folder, "set.extxyz", "set.chemiscope.json")
    record = json.loads((folder / "set.chemiscope.json").read_text(encoding="utf-8"))
    for target, table in (("structure", "map.csv"), ("atom", "site_map.csv")):
        wanted = xy_from(rows_from(folder / "out" / table))
        found = [record["properties"][f"{target} {axis}"]["values"] for axis in "xy"]
        np.testing.assert_array_equal(np.array(found).T, wanted)
    assert len(record["environments"]) == sum(map(len, structures()))
    assert "gap" not in record["properties"]  # some labels are not known
