"""The notebooks of docs/notebooks, made of pages and executed: python tools/make_notebooks.py (extra docs).

Blocks of `python` and `sh` become cells; those of `python torch` stay text. Each notebook runs in an empty folder.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {
    "predict_and_explain": "notebooks/predict_and_explain.md",
    "train_on_your_data": "tutorials/own_data.md",
    "check_a_framework_version": "tutorials/oracle.md",
}
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BESIDE = re.compile(r"\]\((\w+\.md)")  # a link to a page of the same folder
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def cells_of(page: str) -> list[dict]:
    """The cells of the notebook of a page, without outputs."""
    text = (DOCS / page).read_text(encoding="utf-8")
    text = BESIDE.sub(rf"](../{Path(page).parent}/\1", text)
    cells = []
    end = 0
    for found in BLOCK.finditer(text):
        cells.append(("markdown", text[end : found.start()].strip()))
        language, code = found.groups()
        cells.append(("code", ("" if language == "python" else "%%sh -e\n") + code.strip()))
        end = found.end()
    cells.append(("markdown", text[end:].strip()))
    return [cell(kind, source, f"cell-{number}") for number, (kind, source) in enumerate(cells) if source]


def cell(kind: str, source: str, id: str) -> dict:
    """A cell as nbformat 4.5 has it."""
    outputs = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "id": id, "metadata": {}, "source": source.splitlines(keepends=True), **outputs}


def executed(cells: list[dict]) -> dict:
    """The notebook with the outputs of its cells."""
    import nbformat
    from nbclient import NotebookClient

    record = {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    notebook = nbformat.reads(json.dumps(record), as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=1800, resources=place, record_timing=False, coalesce_streams=True).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    return json.loads(nbformat.writes(notebook))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", choices=[*PAGES, []], help="only these")
    for name in parser.parse_args().name or PAGES:
        text = json.dumps(executed(cells_of(PAGES[name])), indent=1, ensure_ascii=False)
        (DOCS / "notebooks" / f"{name}.ipynb").write_text(text + "\n", encoding="utf-8")
        print(name, flush=True)


if __name__ == "__main__":
    main()
