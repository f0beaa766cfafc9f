"""The notebooks of docs/notebooks are those of their pages, and were executed."""

import json
import re

import pytest
from make_notebooks import DOCS, PAGES, cells_of

MACHINE = re.compile(r"/(?:home|private|root|tmp|usr|Users|var|work)/|Warning\b")  # paths of whoever made it


@pytest.mark.parametrize("name", PAGES)
def test_notebook_is_its_page_and_executed(name):
    notebook = json.loads((DOCS / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    wanted = [(cell["cell_type"], cell["source"]) for cell in cells_of(PAGES[name])]
    assert [(cell["cell_type"], cell["source"]) for cell in notebook["cells"]] == wanted, "run tools/make_notebooks.py"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    assert not [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]
    assert [output for cell in code for output in cell["outputs"]]
    outputs = json.dumps([cell["outputs"] for cell in code])
    assert not MACHINE.search(outputs), f"{name}: {MACHINE.search(outputs)[0]}"
