"""How taught attention agrees with what it was taught, beside what needs no network and what nobody taught."""

import numpy as np

from refattn.common.attention_metrics import attention_metrics, attention_of, element_weights
from refattn.config import Config
from refattn.data.store import Dataset
from refattn.data.taught_attention import taught_attention
from refattn.network.evaluate import EvaluatedPart
from refattn.structures.batch import ragged_rows


def attention_summary(dataset: Dataset, config: Config, parts: dict[str, EvaluatedPart]) -> dict[str, dict]:
    """How the attention of the targets that training.attention names agrees with their arrays, on every part.

    Returns
    -------
    dict of each of these targets: `array`, the name, and of every part with structures the attention_metrics of the
    `network`, of what the element alone says (`element`: mean of p times the number of sites over the training set),
    and of attention that nobody taught, the same for all sites (`even`)

    Raises DataError as taught_attention does.
    """
    if not config.training.attention:
        return {}
    share = taught_attention(dataset, config)
    graphs = {name: dataset.graphs.take(part.rows) for name, part in parts.items() if len(part.rows)}
    n_elements = int(dataset.graphs.z.max(initial=0)) + 1
    found = {}
    for target, array in config.training.attention:
        k = config.data.targets.index(target)
        own = {name: share[ragged_rows(dataset.graphs.site_ptr, parts[name].rows)[1], k] for name in graphs}
        found[target] = {"array": array}
        for name, graph in graphs.items():
            attention = {"network": parts[name].attention[:, k], "even": np.ones(len(graph.z))}
            if "train" in graphs:
                train = own["train"], graphs["train"].site_ptr, graphs["train"].z
                attention["element"] = element_weights(*train, n_elements)[graph.z]
            found[target][name] = {
                who: attention_metrics(attention_of(beta, graph.site_ptr), own[name], graph.site_ptr, graph.z)
                for who, beta in attention.items()
            }
    return found
