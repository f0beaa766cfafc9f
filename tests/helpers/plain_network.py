"""The network as docs/design.md section 3 writes it down: concatenation, N x N matrix, loops, no identity. Slow.

It shares nothing with refattn.ops and refattn.network, so that a misunderstanding must be made twice to go unseen.
"""

import itertools

import numpy as np

READ_OUT = [f"{name}_{kind}" for name in ("after", "global_query", "global_key", "hidden", "output") for kind in "wb"]


def swish(u):
    return u / (1 + np.exp(-u))


def layer_norm(u, gain, offset):
    return (u - np.mean(u)) / np.sqrt(np.var(u) + 1e-6) * gain + offset


def softmax(score):
    return np.exp(score) / np.sum(np.exp(score))


def rbf(x, last, n, width):
    return np.array([np.exp(-((x - mu) ** 2) / width**2) for mu in np.linspace(0, last, n)])


def plain_forward(p, shard, config, masks=None):
    """Steps 1 to 7 of docs/design.md section 3 for every structure of a shard, in float64.

    Parameters
    ----------
    p : mapping of parameter name -> array
    shard : GraphBatch
    config : ModelConfig
    masks : dict, optional
        Factors of the dropout: "site" (N, D), ("residual", layer) (N, D), ("attention", layer) (E, H).

    Returns
    -------
    prediction : (S, K); beta : (N, K); alpha : list of (E, H), one for each layer
    """
    masks = masks or {}
    site = first_sites(p, shard, config) * masks.get("site", 1)
    r = [rbf(x, config.radial_max, config.n_radial, config.radial_width) for x in shard.r]
    angles = angles_of_edges(shard, config.n_angular)
    if config.variant == "scann+":
        omega = [rbf(x, 2 * np.pi, config.n_radial, config.radial_width) for x in shard.omega]
        omega = [np.concatenate([x, angle]) for x, angle in zip(omega, angles, strict=True)]
        geo = [
            swish(a @ p["distance_w"] + p["distance_b"]) * swish(b @ p["angle_w"] + p["angle_b"])
            for a, b in zip(r, omega, strict=True)
        ]
    else:
        geo = [np.concatenate([x, angle]) for x, angle in zip(r, angles, strict=True)]
    alphas = []
    for layer in range(config.n_layers):
        w = {name.partition(".")[2]: p[name] for name in p if name.startswith(f"layer{layer}.")}
        mask = masks.get(("attention", layer), np.ones((len(shard.nbr), config.n_heads)))
        new_geo, new_site, alpha = [], [], []
        for i in range(len(site)):
            edges = range(shard.edge_ptr[i], shard.edge_ptr[i + 1])
            filters = [filter_of(site[i], geo[e], site[shard.nbr[e]], shard.weight[e], w, config) for e in edges]
            new_geo += filters
            neighbours = [site[shard.nbr[e]] for e in edges]
            context, shares = attend(site[i], neighbours, filters, mask[list(edges)], w, config)
            alpha += shares
            if config.residual:
                hidden = swish(context @ w["residual_w1"] + w["residual_b1"])
                update = hidden @ w["residual_w2"] + w["residual_b2"]
                update = update * masks.get(("residual", layer), np.ones_like(site))[i]
                context = layer_norm(context + update, w["residual_gain"], w["residual_offset"])
            new_site.append(context)
        site = np.array(new_site)
        if config.variant == "scann+":
            geo = new_geo
        alphas.append(np.array(alpha).reshape(-1, config.n_heads))
    prediction = np.zeros((len(shard), config.n_targets))
    beta = np.zeros((len(site), config.n_targets))
    for k in range(config.n_targets):
        own = {name: p[f"target{k}.{name}" if k else name] for name in READ_OUT}
        for s in range(len(shard)):
            sites = slice(shard.site_ptr[s], shard.site_ptr[s + 1])
            beta[sites, k], y = read_out(swish(site[sites] @ own["after_w"] + own["after_b"]), own, config)
            prediction[s, k] = max(y, 0) if config.non_negative else y
    return prediction, beta, alphas


def first_sites(p, shard, config):
    """Step 1."""
    c = shard.features @ p["embed_w"] + p["embed_b"] if config.features == "cgcnn" else p["embed"][shard.z]
    if config.ring:
        c = np.concatenate([c, shard.ring @ p["ring_w"] + p["ring_b"]], axis=1)
    return swish(c @ p["site_w"] + p["site_b"])


def angles_of_edges(shard, n):
    """The angles that each edge makes with the others of its site, (E, 2 n): Gaussians of the cosine, from -1 to 1, for
    all of these, and by their species."""
    found = np.zeros((len(shard.nbr), 2 * n))
    if n:
        for i in range(len(shard.z)):
            edges = range(shard.edge_ptr[i], shard.edge_ptr[i + 1])
            for e, f in itertools.permutations(edges, 2):
                cos = shard.direction[e] @ shard.direction[f]
                for a, mu in enumerate(np.linspace(-1, 1, n)):
                    share = shard.weight[f] * np.exp(-(((cos - mu) * (n - 1) / 2) ** 2))
                    found[e, a] += share
                    found[e, n + a] += shard.species[f] * share
    return found


def filter_of(site_i, geo, site_j, weight, w, config):
    """Step 2 of SCANN, 3a of SCANN+, for one edge."""
    if config.variant == "scann":
        return swish(geo @ w["filter_w"] + w["filter_b"]) * weight
    u = np.concatenate([site_i, geo, site_j]) @ w["filter_w"] + w["filter_b"]
    return layer_norm(swish(u) + geo, w["geometry_gain"], w["geometry_offset"])


def attend(site_i, neighbours, filters, mask, w, config):
    """Steps 3b to 3d for one site: its new representation and the (H,) attention of each of its edges."""
    channels = config.width // config.n_heads
    q = site_i @ w["query_w"] + w["query_b"]
    keys = [(site_j * geo) @ w["key_w"] + w["key_b"] for site_j, geo in zip(neighbours, filters, strict=True)]
    context, alpha = q.copy(), np.zeros((len(keys), config.n_heads))
    for h in range(config.n_heads if keys else 0):
        head = slice(h * channels, (h + 1) * channels)
        alpha[:, h] = softmax(np.array([q[head] @ k[head] for k in keys]) / np.sqrt(channels))
        context[head] += sum(alpha[e, h] * mask[e, h] * keys[e][head] for e in range(len(keys)))
    return layer_norm(context, w["context_gain"], w["context_offset"]), list(alpha)


def read_out(site, p, config):
    """Steps 6 and 7 for one structure: the (N,) global attention and the property."""
    q, k = site @ p["global_query_w"] + p["global_query_b"], site @ p["global_key_w"] + p["global_key_b"]
    n = len(site)
    score = np.zeros(n)
    for i in range(n):
        for j in range(n):
            if config.readout != "published":
                score[i] += k[i] @ q[j] / n
            elif i != j:
                score[i] += k[i] @ q[j]
    if config.normalise_attention and np.any(score):
        square = np.sum(score**2) if config.readout == "published" else np.mean(score**2)
        score = score / np.sqrt(square)
    beta = softmax(score)

    def head(x):
        return (swish(x @ p["hidden_w"] + p["hidden_b"]) @ p["output_w"] + p["output_b"])[0]

    if config.readout == "sum":
        return beta, sum(head(k[i]) for i in range(n))
    if config.head == "additive":
        return beta, sum(beta[i] * head(k[i]) for i in range(n))
    return beta, head(sum(beta[i] * k[i] for i in range(n)))
