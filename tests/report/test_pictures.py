"""The pictures of explanations: their texts, their colours, their numbers."""

import dataclasses
import itertools
import re

import ase
import numpy as np
import pytest
from explanation_cases import n_colours, rattled_salt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

import refattn
from refattn.report import pictures
from refattn.report.findings import Column, ExplainedStructure
from refattn.report.pictures import amounts, drawing, picture


@pytest.mark.parametrize("make", [lambda: ase.Atoms("C"), rattled_salt], ids=["atom", "salt"])
def test_dark_pictures(make, model, tmp_path):
    finding = ExplainedStructure(make(), {"gap": refattn.explain(model, make(), scores=[])})
    picture(tmp_path / "dark.png", finding, [["beta"]], "dark")
    pixels = imread(tmp_path / "dark.png")
    assert (pixels[0, 0, :3] < 0.15).all()
    assert n_colours(pixels) > 100


@pytest.mark.parametrize("beside", [False, True], ids=["below each other", "beside each other"])
@pytest.mark.parametrize(
    "name", ["formation energy of the relaxed cell", 9 * "long name of m ", "mmmm_MMMM_mmm", 90 * "W"]
)
def test_no_text_of_a_picture_is_clipped_or_covers_another(name, beside, model):
    """Whatever the names and units of the targets are."""
    explanation = refattn.explain(model, rattled_salt(), scores=[])
    names = [name, "band_gap"]
    finding = ExplainedStructure(
        explanation.atoms,
        {name: dataclasses.replace(explanation, target=name, unit="eV/formula unit") for name in names},
        dict.fromkeys(names, -0.2888),
    )
    columns = [finding.column_name(score, name) for name in names for score in ("gradient_times_input", "scaled_beta")]
    figure = drawing(finding, [columns[:2], columns[2:]] if beside else [columns])
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width and 0 <= box.y0 < box.y1 <= figure.bbox.height
    assert len(boxes) == 2 + 2 * len(columns) + 1
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_a_range_of_colours_is_never_so_narrow_that_it_shows_rounding():
    even = 1 + 1e-13 * np.arange(6)
    low, high = Column("beta", "", "", False, even).limits
    assert low == pytest.approx(0.99) and high == pytest.approx(1.01)
    assert Column("occlusion", "", "eV", True, np.array([-3.0, 1])).limits == (-3, 3)
    assert Column("removal", "", "eV", True, np.array([np.nan])).limits == (-1, 1)
    assert Column("homo_population", "", "", False, np.array([0.2, 0.8])).limits == (0, 0.8)


def test_prediction_and_label_have_the_same_decimal_places(model):
    explanation = refattn.explain(model, ase.Atoms("C"), scores=[])
    cases = {(-11.5, -11.105): "−11.50 eV predicted, −11.11 eV label", (0.25, None): "0.2500 eV predicted"}
    cases |= {(2e-9, 1e-9): "2e−09 eV predicted, 1e−09 eV label", (0.0, None): "0.000 eV predicted"}
    for (value, label), words in cases.items():
        object.__setattr__(explanation, "value", value)
        assert amounts(explanation, label) == words


def test_no_line_ends_between_a_name_and_its_value():
    text = "; ".join(f"name {n} −{n}.25 eV predicted, {n}.50 eV label" for n in range(9))
    for width in range(3, 18):
        lines = pictures._wrapped(pictures._kept_together(text), width, pictures.LETTER).splitlines()
        assert not any(re.match(r"[−\d]|eV", line) for line in lines), lines
