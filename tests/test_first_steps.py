"""The notebook experiments/first_steps.ipynb: it runs as it is, and is kept without outputs.

A notebook with outputs would show figures of another version or machine, and every run would change
the file.
"""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "experiments" / "first_steps.ipynb"


def test_it_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) == 4
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_links():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#]+)(?:#([\w-]+))?\)", text)
    assert len(links) == 3
    for target, anchor in links:
        page = (NOTEBOOK.parent / target).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        assert not anchor or anchor in {head.lower().replace(" ", "-") for head in headings}


@pytest.mark.slow  # no version of Python or NumPy changes what it shows
def test_it_runs(tmp_path, monkeypatch):
    """The agent learns, and needs its memory."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=folder).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output.output_type for output in outputs] == ["stream", "display_data", "stream"]
    assert "image/png" in outputs[1].data
    told = outputs[0].text + outputs[2].text
    mean, carried, dropped = map(float, re.findall(r"[:n] (-?\d\.\d+)", told))
    assert mean > 0.8 and carried > 0.8 and dropped < 0
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "agent.npz").exists()
