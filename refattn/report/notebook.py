"""What a notebook shows of a prediction and of an explanation, as HTML that needs nothing else."""

import base64
import html
import io

from refattn.common.limits import PICTURE_SITES
from refattn.explanation.explain import Explanation
from refattn.prediction.predictor import Prediction
from refattn.report.findings import ExplainedStructure, with_unit
from refattn.report.pictures import amounts_of_all, drawing

ROWS = 20  # of a table
DPI = 110


def prediction_html(prediction: Prediction) -> str:
    """A table of the first ROWS structures: values, uncertainty, and the site with most of the attention."""
    each = prediction.of_targets()
    heads = ["id"]
    for one in each:
        heads += [with_unit(one.target, one.unit), *one.uncertainty(), "most attention"]
    rows = []
    for s, id in enumerate(prediction.id[:ROWS]):
        cells = [html.escape(id)]
        for one in each:
            top = one.attention[s].argmax()
            cells += [f"{values[s]:.6g}" for values in (one.value, *one.uncertainty().values())]
            cells.append(f"site {top}: {one.attention[s][top]:.3g} of 1")
        rows.append(cells)
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for cells in rows)
    rest = len(prediction.id) - len(rows)
    more = f"<p>and {rest} more</p>" if rest > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def explanation_html(explanation: Explanation) -> str:
    """The picture of a structure coloured by attention, and by integrated gradients where they were computed."""
    finding = ExplainedStructure(explanation.atoms, {explanation.target: explanation})
    if len(finding.atoms) > PICTURE_SITES:
        return f"<p>{html.escape(f'{finding.id} {finding.formula}: {amounts_of_all(finding)}')}</p>"
    shown = [name for name in ("scaled_beta", "integrated_gradients") if name in finding.columns]
    with io.BytesIO() as stream:
        drawing(finding, [shown]).savefig(stream, format="png", dpi=DPI)
        data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{html.escape(finding.id)}" src="data:image/png;base64,{data}">'
