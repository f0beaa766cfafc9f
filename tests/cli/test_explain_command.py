"""refattn explain: tables, pictures and pages hold what refattn.explain says; and what is refused."""

import base64
import csv
import dataclasses
import gzip
import json
import re
import signal
import subprocess
import sys
import time

import ase.io
import h5py
import numpy as np
import pytest
from ase.build import molecule
from click.testing import CliRunner
from explanation_cases import n_colours, rattled_salt
from extras import needs_xtb
from matplotlib.image import imread
from scipy.stats import spearmanr

import refattn
from refattn.cli.main import cli
from refattn.common.ranks import spearman
from refattn.errors import DataError
from refattn.explanation.comparison import populations
from refattn.generate.first_principles import FrontierOrbitals
from refattn.network.checkpoint import save_checkpoint
from refattn.report import findings as report
from refattn.report.findings import ExplainedStructure, findings
from refattn.report.folder import files_of, stacks_of
from refattn.report.pages import page_data, write_page

NAMES = ("beta", "scaled_beta", "impact", "gradient_times_input", "occlusion")
UNITS = {"gradient_times_input": "eV", "occlusion": "eV"}
# extended XYZ and CSV hold 17 digits; the rest is the parser of ASE
EXACT = 1e-14


def structures():
    """Molecules with populations and a label, and a crystal; the ids are what no page should choke on."""
    found = [molecule("CH3OH"), molecule("H2O"), molecule("NH3")]
    for atoms, id in zip(found, ("metha nol", "a<b>&\"'</script>", "../nh3"), strict=True):
        atoms.info.update(id=id, gap=1.25)
        rng = np.random.default_rng(len(atoms))
        for name in ("homo_population", "lumo_population"):
            share = rng.random(len(atoms))
            atoms.set_array(name, share / share.sum())
    del found[2].info["gap"]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    """A model, structures, and what `refattn explain` makes of them."""
    folder = tmp_path_factory.mktemp("explain")
    save_checkpoint(folder / "model.h5", model.checkpoint)
    ase.io.write(folder / "set.extxyz", structures(), format="extxyz")
    run(folder, "set.extxyz", "out", "--edges", "--max-pictures", 2, "--score", "scaled_beta", "--score", "occlusion")
    return folder


def run(folder, file, out, *options, scores="occlusion", compare=("--compare", "orbitals")):
    """The command in this process; it must end well."""
    result = invoke(folder, file, out, "--scores", scores, *compare, *options)
    assert result.exit_code == 0, result.stderr or repr(result.exception)
    return result


def invoke(folder, file, out, *options):
    arguments = ["explain", folder / "model.h5", folder / file, "--out", folder / out, "--threads", 1, *options]
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def wanted(model):
    return [refattn.explain(model, atoms, scores=["occlusion"], n_threads=1) for atoms in structures()]


def rows_from(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def with_unit(name):
    return f"{name} ({UNITS[name]})" if name in UNITS else name


# ---- tables --------------------------------------------------------------------------------------------------------


def test_everything_is_there(folder):
    found = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()}
    names = ["metha_nol", "a_b_script", "nh3"]
    wanted = {path.name for path in files_of(folder / "out")} | {"page.css", "page.js", "list.js"}
    wanted |= {f"pictures/{name}.png" for name in names[:2]}
    wanted |= {
        f"{place}.{suffix}" for n in names for place, suffix in ((f"pages/{n}", "html"), (f"thumbnails/{n}", "png"))
    }
    assert found == wanted


def test_sites_csv(folder, wanted):
    rows = iter(rows_from(folder / "out" / "sites.csv"))
    for atoms, explanation in zip(structures(), wanted, strict=True):
        for site, atom in enumerate(atoms):
            row = next(rows)
            assert (row["id"], int(row["site"]), row["element"]) == (atoms.info["id"], site, atom.symbol)
            position = [float(row[f"{axis} (Å)"]) for axis in "xyz"]
            np.testing.assert_allclose(position, atom.position, rtol=0, atol=1e-8)
            for name in NAMES:
                found = float(row[with_unit(name)])
                assert found == pytest.approx(getattr(explanation, name)[site], rel=1e-6, abs=1e-9), name
            assert 0 < float(row["homo_population"]) < 1
    assert next(rows, None) is None


def test_edges_csv(folder, wanted):
    rows = rows_from(folder / "out" / "edges.csv")
    assert len(rows) == sum(len(explanation.edges.r) for explanation in wanted)
    first, edges = wanted[0], wanted[0].edges
    for e, row in enumerate(rows[: len(edges.r)]):
        assert (int(row["i"]), int(row["j"])) == (edges.site[e], edges.nbr[e])
        assert [int(row[f"image_{axis}"]) for axis in "abc"] == edges.image[e].tolist()
        numbers = [float(row[name]) for name in ("r (Å)", "omega (sr)", "alpha_0", "alpha_1")]
        mean = first.alpha[:, e].mean(axis=1)
        np.testing.assert_allclose(numbers, [edges.r[e], edges.omega[e], *mean], rtol=1e-6)


def test_explanations_h5(folder, wanted):
    with h5py.File(folder / "out" / "explanations.h5") as file:
        assert (file.attrs["format"], file.attrs["target"], file.attrs["unit"]) == ("refattn-explanations", "gap", "eV")
        site_ptr, edge_ptr = file["structures/site_ptr"][()], file["structures/edge_ptr"][()]
        assert file["structures/id"].asstr()[()].tolist() == [atoms.info["id"] for atoms in structures()]
        np.testing.assert_array_equal(file["structures/label"], [1.25, 1.25, np.nan])
        units = {name: file[name].attrs["unit"] for name in ("edges/r", "edges/omega", "sites/occlusion")}
        assert units == {"edges/r": "Å", "edges/omega": "sr", "sites/occlusion": "eV"}
        assert file["structures/value"].attrs["unit"] == "eV"
        for s, e in enumerate(wanted):
            sites, edges = (slice(*ptr[s : s + 2]) for ptr in (site_ptr, edge_ptr))
            for name in (*NAMES, "site_embedding"):
                np.testing.assert_allclose(file[f"sites/{name}"][sites], getattr(e, name), rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(file["edges/alpha"][:, edges], e.alpha, rtol=1e-6)
            for name in ("site", "nbr", "image"):
                assert np.array_equal(file[f"edges/{name}"][edges], getattr(e.edges, name))
            np.testing.assert_allclose(file["structures/structure_vector"][s], e.structure_vector, rtol=1e-6)
            assert file["structures/value"][s] == pytest.approx(e.value, rel=1e-6)


def test_explained_extxyz_opens_in_ase(folder, wanted):
    frames = ase.io.read(folder / "out" / "explained.extxyz", index=":")
    with h5py.File(folder / "out" / "explanations.h5") as file:
        for name in (*NAMES, "homo_population", "lumo_population"):
            found = np.concatenate([frame.arrays[name] for frame in frames])
            np.testing.assert_allclose(found, file[f"sites/{name}"], rtol=EXACT, atol=0)
    for atoms, frame, explanation in zip(structures(), frames, wanted, strict=True):
        assert frame.info["id"] == atoms.info["id"]
        assert frame.info["predicted_gap"] == pytest.approx(explanation.value, rel=1e-6)
        assert frame.info.get("gap") == atoms.info.get("gap")
        assert (frame.numbers == atoms.numbers).all() and not frame.pbc.any()


def test_a_crystal_keeps_its_cell_and_a_clusters_file_is_read_again(folder, tmp_path):
    """What explain writes it reads, and ids such as 007 stay text."""
    salt = rattled_salt()
    salt.info["id"] = "salt"
    ase.io.write(folder / "salt.extxyz", salt, format="extxyz")
    run(folder, "salt.extxyz", "salt", "--no-pages", scores="none", compare=())
    frame = ase.io.read(folder / "salt" / "explained.extxyz")
    assert frame.pbc.all()
    np.testing.assert_allclose(frame.cell.array, salt.cell.array, atol=1e-8)
    run(folder, "salt/explained.extxyz", "again", "--no-pages", "--max-pictures", 0, scores="none", compare=())
    assert (folder / "again" / "sites.csv").read_text() == (folder / "salt" / "sites.csv").read_text()
    assert not (folder / "again" / "edges.csv").exists()
    assert not (folder / "again" / "index.html").exists()


def test_correlations_are_printed_and_stored(folder):
    (atoms, *_), out = structures(), folder / "out"
    row = rows_from(out / "structures.csv")[0]
    sites = [row for row in rows_from(out / "sites.csv") if row["id"] == atoms.info["id"]]
    scores, known = ([float(site[name]) for site in sites] for name in ("scaled_beta", "homo_population"))
    rho = spearmanr(np.round(scores, 9), np.round(known, 9)).statistic  # equivalent atoms differ by rounding
    assert float(row["Spearman scaled_beta homo_population"]) == pytest.approx(rho)
    with h5py.File(out / "explanations.h5") as file:
        assert file["correlation/scaled_beta/homo_population"][0] == pytest.approx(rho)
    result = run(folder, "set.extxyz", "printed", "--no-pages", "--max-pictures", 0, scores="none")
    line = result.stdout.splitlines()[0].split("\t")
    assert (line[0], line[1][-3:]) == ("metha nol", " eV")
    assert float(line[3].split()[-1].replace("−", "-")) == pytest.approx(rho, abs=1e-3)


def test_the_summary_as_json(folder):
    result = run(folder, "set.extxyz", "json", "--no-pages", "--max-pictures", 1, "--json", scores="none")
    summary = json.loads(result.stdout)
    assert (summary["structures"], summary["left_out"], summary["pictures"], summary["pages"]) == (3, [], 1, 0)
    assert summary["correlation"]["beta"]["homo_population"]["n"] == 3
    assert "pictures only of the first 1" in result.stderr


def test_what_large_structures_do_without_is_said(folder, monkeypatch):
    monkeypatch.setattr("refattn.report.folder.PICTURE_SITES", 2)
    monkeypatch.setattr("refattn.report.folder.OCCLUDED_SITES", 2)
    monkeypatch.setattr("refattn.explanation.explain.OCCLUDED_SITES", 2)
    monkeypatch.setattr("refattn.explanation.attribution.MAX_NODES", 8)
    result = run(folder, "set.extxyz", "large", scores="integrated_gradients,occlusion", compare=())
    assert "has 6 sites; it is in the tables, but" in result.stderr
    assert "occlusion and removal are of" in result.stderr
    assert "not settled after 8 nodes" in result.stderr
    assert "occlusion and" not in run(folder, "set.extxyz", "unasked", scores="none", compare=()).stderr
    assert not list((folder / "large" / "pictures").iterdir())
    assert {site["occlusion (eV)"] for site in rows_from(folder / "large" / "sites.csv")} == {""}


# ---- correlations and populations ----------------------------------------------------------------------------------


def test_ties_up_to_rounding_share_a_rank():
    even = 1 + 1e-13 * np.arange(6)
    assert np.isnan(spearman(even, np.arange(6.0)))
    assert spearman(np.array([0, 1, 1 + 1e-13, 2.0]), np.array([0, 1, 1, 5.0])) == pytest.approx(1)
    assert np.isnan(spearman(np.arange(2.0), np.arange(2.0)))


@needs_xtb
def test_populations_from_xtb_agree_with_the_structures_own():
    water = molecule("H2O")
    found = populations(water)
    assert found["homo_population"][0] > 0.9  # the lone pair on oxygen
    for name, values in found.items():
        water.set_array(name, values)
    water.pbc = True
    assert all(np.array_equal(values, found[name]) for name, values in populations(water).items())
    water.arrays["homo_population"][0] = np.nan
    with pytest.raises(DataError, match="homo_population must be a finite number"):
        populations(water)
    with pytest.raises(DataError, match="is periodic"):
        populations(rattled_salt())


@pytest.mark.parametrize(("uneven", "is_ranked"), [(0.025, False), (0.035, True)])
def test_populations_that_are_even_are_not_ranked(model, uneven, is_ranked):
    """By symmetry those of C60 are; what coordinates of three digits leave would be ranked. Half of the summed
    differences from a third is a third of `uneven` here, and 0.01 is the bound."""
    known = {"homo_population": np.array([1 + uneven, 1 - uneven, 1]) / 3}
    explanation = refattn.explain(model, molecule("H2O"), scores=[])
    finding = ExplainedStructure(molecule("H2O"), {"gap": explanation}, {}, known)
    assert (np.isfinite(list(finding.correlations.values())) == is_ranked).all()


def test_the_orbital_that_the_target_is_about_is_drawn(model):
    known = {"homo_population": np.ones(3), "lumo_population": np.ones(3)}
    finding = ExplainedStructure(
        molecule("H2O"), {"gap": refattn.explain(model, molecule("H2O"), scores=[])}, {}, known
    )
    assert stacks_of(finding, ("beta",)) == [["beta", *known]]
    finding = dataclasses.replace(finding, explanations={"xtb_lumo": finding.explanation})
    assert stacks_of(finding, ("beta",)) == [["beta", "lumo_population"]]
    finding = dataclasses.replace(finding, explanations={"homo": finding.explanation, **finding.explanations})
    beside = [["beta_homo", "homo_population"], ["beta_xtb_lumo", "lumo_population"]]
    assert stacks_of(finding, ("beta",)) == beside
    finding = dataclasses.replace(finding, explanations={"gap": finding.explanation, **finding.explanations})
    assert stacks_of(finding, ("beta",)) == [["beta_gap", *beside[0], *beside[1]]]


def test_a_density_is_drawn_below_its_population(model):
    orbitals = FrontierOrbitals(
        molecule("H2O"), "hf/sto-3g", {}, {}, {"homo": np.ones((7, 1)), "lumo": np.ones((7, 1))}
    )
    known = {"homo_population": np.ones(3), "lumo_population": np.ones(3)}
    explanation = refattn.explain(model, molecule("H2O"), scores=[])
    finding = ExplainedStructure(molecule("H2O"), {"gap": explanation}, {}, known, orbitals)
    below = [["homo_population", "homo_density"], ["lumo_population", "lumo_density"]]
    assert stacks_of(finding, ("beta",)) == [["beta", *below[0], *below[1]]]
    finding = dataclasses.replace(finding, explanations={"homo": explanation, "lumo": explanation})
    assert stacks_of(finding, ("beta",)) == [["beta_homo", *below[0]], ["beta_lumo", *below[1]]]


# ---- pictures ------------------------------------------------------------------------------------------------------


def test_pictures_are_17_cm_wide_and_not_blank(folder):
    for path in (folder / "out" / "pictures").iterdir():
        pixels = imread(path)
        assert abs(pixels.shape[1] - 17 / 2.54 * 300) <= 1
        assert pixels.shape[0] > 4 * 2.6 / 2.54 * 300  # two scores and two populations
        assert n_colours(pixels) > 100
        assert (pixels[0, 0, :3] == 1).all()
    for path in (folder / "out" / "thumbnails").iterdir():
        pixels = imread(path)
        assert pixels.shape == (160, 240, 4)
        assert 0.05 < (pixels[:, :, 3] > 0.5).mean() < 0.95


# ---- pages ---------------------------------------------------------------------------------------------------------


def test_pages_hold_the_data_and_need_no_network(folder, wanted):
    out = folder / "out"
    own = [out / "index.html", *(out / name for name in ("page.css", "page.js", "list.js")), *(out / "pages").iterdir()]
    for path in own:
        assert not re.search(r"https?://|//cdn|@import", path.read_text(encoding="utf-8")), path.name
    page = (out / "pages" / "a_b_script.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 3
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [column["name"] for column in data["columns"]] == [*NAMES, "homo_population", "lumo_population"]
    for column in data["columns"][: len(NAMES)]:
        np.testing.assert_allclose(column["values"], getattr(wanted[1], column["name"]), rtol=1e-6, atol=1e-9)
    assert data["elements"] == ["O", "H", "H"]
    assert len(data["bonds"]) == 2
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert address.startswith("data:") or (out / "pages" / address).exists(), address


def test_the_list_names_every_structure(folder):
    out = folder / "out"
    text = (out / "index.html").read_text(encoding="utf-8")
    assert text.count("<tr>") == 4
    assert "a&lt;b&gt;&amp;" in text and "<b>" not in text
    for address in re.findall(r'(?:src|href)="([^"]+)"', text):
        assert address.startswith("data:") or (out / address).exists(), address
    assert text.count("pictures/") == 2  # of three, by --max-pictures
    for path in (out / "index.html", *(out / "pages").iterdir()):
        page = path.read_text(encoding="utf-8")
        for tag in ("html", "head", "body", "table", "tr", "td", "th", "h1", "p", "div", "span"):
            assert len(re.findall(rf"<{tag}\b", page)) == page.count(f"</{tag}>"), tag


def test_a_number_that_is_none_is_null(model, tmp_path):
    atoms = ase.Atoms("C", info={"id": "one"})
    finding = next(findings(model, [atoms], scores=["removal"], n_threads=1))
    write_page(tmp_path / "page.html", finding, "removal")
    assert '"values": [null]' in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page_data(finding, "removal")["bonds"] == []


# ---- what is refused, and what remains -----------------------------------------------------------------------------


def refused(status, *arguments):
    result = invoke(*arguments)
    assert result.exit_code == status, repr(result.exception)
    assert result.stderr.count("\n") == 1 or status == 2
    return result.stderr


def test_without_pages(folder):
    run(folder, "set.extxyz", "plain", "--no-pages", "--max-pictures", 0, scores="none", compare=())
    assert (folder / "plain" / "sites.csv").exists()


def test_bad_structures_are_one_sentence_or_left_out(folder, tmp_path):
    good, bad = molecule("H2O"), molecule("H2O")
    bad.positions[1] = bad.positions[0]
    good.info["id"], bad.info["id"] = "good", "bad"
    ase.io.write(folder / "bad.extxyz", [good, bad], format="extxyz")
    options = ("--no-pages", "--max-pictures", 0)
    assert "bad" in refused(1, folder, "bad.extxyz", "bad", *options)
    assert [path.name for path in (folder / "bad").iterdir()] == ["pictures"]
    result = run(folder, "bad.extxyz", "bad", "--skip-bad", *options, scores="none", compare=())
    assert "left out bad" in result.stderr and "1 structure, 1 left out" in result.stderr
    assert {row["id"] for row in rows_from(folder / "bad" / "sites.csv")} == {"good"}


def test_what_stops_partway_leaves_no_picture_of_before(folder):
    run(folder, "set.extxyz", "partway", "--no-pages", scores="none", compare=())
    before = {path.name for path in (folder / "partway" / "pictures").iterdir()}
    waters = [molecule("H2O") for _ in range(33)]
    waters[-1].positions[1] = waters[-1].positions[0]
    for number, atoms in enumerate(waters):
        atoms.info["id"] = f"w{number}"
    ase.io.write(folder / "long.extxyz", waters, format="extxyz")
    options = ("--no-pages", "--max-pictures", 2, "--scores", "none", "--overwrite")
    result = invoke(folder, "long.extxyz", "partway", *options)
    assert result.exit_code == 1 and "hold the 32 structures before" in result.stderr and "w32" in result.stderr
    assert {row["id"] for row in rows_from(folder / "partway" / "sites.csv")} == {f"w{k}" for k in range(32)}
    after = {path.name for path in (folder / "partway" / "pictures").iterdir()}
    assert len(before) > 2 and after == {"w0.png", "w1.png"}


def test_what_is_refused(folder):
    (folder / "file").write_text("")
    assert "file" in refused(1, folder, "set.extxyz", "file", "--no-pages")
    assert "is the input" in refused(1, folder, "out/explained.extxyz", "out")
    assert "no such file" in refused(1, folder, "none.extxyz", "none")
    assert "none of" in refused(2, folder, "set.extxyz", "none", "--scores", "luck")
    assert "0 to 1" in refused(2, folder, "set.extxyz", "none", "--share", "2")
    assert "--compare" in refused(2, folder, "set.extxyz", "none", "--score", "homo_population")
    assert not (folder / "none").exists()


def test_memory_is_bounded_by_the_block(model):
    """As many structures are read ahead as a block holds."""
    read = []
    stream = findings(model, (read.append(n) or molecule("H2O") for n in range(20)), scores=(), block=4, n_threads=1)
    for n, _ in enumerate(stream):
        assert len(read) <= 4 * (n // 4 + 1)


def test_a_kill_leaves_no_half_file(folder):
    """Only .part files, and whole pictures; the same command then does it all."""
    ase.io.write(folder / "many.extxyz", [molecule("CH3OH") for _ in range(400)], format="extxyz")
    code = "from refattn.cli.main import cli; cli()"
    arguments = ["explain", folder / "model.h5", folder / "many.extxyz", "--out", folder / "killed", "--no-pages"]
    command = [sys.executable, "-c", code, *map(str, arguments), "--scores", "none", "--max-pictures", "400"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    for path in (folder / "killed").iterdir():
        assert path.name == "pictures" or path.suffix == ".part", path
    for path in (folder / "killed" / "pictures").glob("*.png"):
        imread(path)


def test_populations_of_a_method(folder, monkeypatch):
    """In the place of those that the file has."""
    asked = []

    def even(atoms, method, report):
        asked.append(method)
        report("cycle 1")
        arrays = dict.fromkeys(("homo_population", "lumo_population"), np.full(len(atoms), 1 / len(atoms)))
        return FrontierOrbitals(atoms, method, {}, arrays)

    monkeypatch.setattr(report, "frontier_orbitals", even)
    run(folder, "set.extxyz", "of_method", "--no-pages", "--max-pictures", 0, "--method", "hf/sto-3g", scores="none")
    explained = ase.io.read(folder / "of_method" / "explained.extxyz", ":")
    for atoms in explained:
        np.testing.assert_allclose(atoms.arrays["homo_population"], 1 / len(atoms), rtol=1e-6)
    assert asked == ["hf/sto-3g"] * 3
    assert "is of --compare" in refused(2, folder, "set.extxyz", "none", "--method", "hf/sto-3g")


def test_a_prediction_that_hardly_depends_on_what_is_drawn(model):
    """As that of C60 on its elements: 4 meV, which would be drawn at full scale."""
    (finding,) = findings(model, structures()[:1], scores=())
    explanation = finding.explanation
    size = np.abs(explanation.gradient_times_input).sum()
    for share, is_weak in ((0.04, True), (0.06, False)):
        changed = dataclasses.replace(explanation, spread=float(size / share))
        shown = dataclasses.replace(finding, explanations={changed.target: changed})
        assert ("gradient_times_input" in shown.weak) == is_weak
        assert ("% of the labels' spread" in shown.columns["gradient_times_input"].title) == is_weak
        assert "spread" not in shown.columns["beta"].title


def test_one_scale_and_vector_pictures(folder):
    """All structures have the same ends of the colours; an SVG is the same file when it is drawn again."""
    options = ["--one-scale", "--picture-format", "svg"]
    run(folder, "set.extxyz", "scale", *options, scores="none", compare=())
    ends = []
    for path in sorted((folder / "scale" / "pages").iterdir()):
        data = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1])
        ends.append([(column["low"], column["high"]) for column in data["columns"]])
        assert all(c["low"] - 1e-9 <= min(c["values"]) <= max(c["values"]) <= c["high"] + 1e-9 for c in data["columns"])
    assert len(ends) == 3 and ends[0] == ends[1] == ends[2]
    pictures = {path.name: path.read_text() for path in (folder / "scale" / "pictures").iterdir()}
    assert len(pictures) == 3 and all(name.endswith(".svg") and "<svg" in text for name, text in pictures.items())
    run(folder, "set.extxyz", "scale", *options, "--max-pages", 0, scores="none", compare=())
    assert {path.name for path in (folder / "scale" / "pictures").iterdir()} == {*pictures}  # known as its own


def test_a_file_for_chemiscope(folder, wanted):
    run(folder, "set.extxyz", "set.chemiscope.json.gz")
    record = json.loads(gzip.decompress((folder / "set.chemiscope.json.gz").read_bytes()))
    sizes = [structure["size"] for structure in record["structures"]]
    assert sizes == [len(atoms) for atoms in structures()]
    np.testing.assert_allclose(record["structures"][0]["y"], structures()[0].positions[:, 1], atol=1e-5)
    centres = [(s, i) for s, n in enumerate(sizes) for i in range(n)]
    assert [(e["structure"], e["center"]) for e in record["environments"]] == centres
    for name, row in record["properties"].items():
        assert len(row["values"]) == (sum(sizes) if row["target"] == "atom" else len(sizes)), name
    beta = np.concatenate([e.beta for e in wanted])
    np.testing.assert_allclose(record["properties"]["beta"]["values"], beta, rtol=1e-6)
    assert {axis["property"] for axis in record["settings"]["map"].values()} <= record["properties"].keys()


def test_what_a_notebook_shows(model):
    atoms = structures()[0]
    text = refattn.explain(model, atoms, scores=(), n_threads=1)._repr_html_()
    assert base64.b64decode(text.partition("base64,")[2].rstrip('">'))[:4] == b"\x89PNG"
    table = model.predict([atoms] * 25)._repr_html_()
    assert table.count("<tr>") == 21 and "and 5 more" in table and "(eV)" in table
