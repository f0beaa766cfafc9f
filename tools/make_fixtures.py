"""Reduces the numbers made with the authors' code to the fixtures in tests/data.

    python tools/make_fixtures.py REFERENCE [tests/data]

REFERENCE holds `network.h5` and `models/*.h5` as described in its README. Padding is dropped (the ragged arrays of
refattn.structures.batch), weights and gradients become one vector in the order of parameter_table, and float64
outputs and gradients are rounded to within 1.5e-11 of the largest entry of their array, which halves their size.
"""

import argparse
import gzip
import json
from pathlib import Path

import h5py
import numpy as np

from refattn.config import Config, to_toml
from refattn.keras_import import read_keras, suggest_graph
from refattn.network.params import parameter_table

BITS = 36
EXACT_STEPS = ("s_base", "s_plus")  # the variants with three Adam steps and with gradients in float32 too
SMALL = {"s_plus_drop", "full_plus"}  # no layers: one is s_plus with other weights, one is too large
SAME_AS = {"s_plus_scale": "s_plus"}  # `scale` never reaches the network: the same bits
COMPRESSED = {"compression": "gzip", "compression_opts": 9, "shuffle": True}


def rounded(array, bits=BITS):
    """The array in multiples of 2^-bits times the power of two above its largest entry: 1.5e-11 of that."""
    largest = np.abs(array).max(initial=0)
    if not largest:
        return array
    step = 2.0 ** (np.ceil(np.log2(largest)) - bits)
    return np.round(array / step) * step


def write(group, name, array):
    """A data set, compressed where that pays for the header."""
    array = np.asarray(array)
    group.create_dataset(name, data=array, **(COMPRESSED if array.nbytes > 512 else {}))


def write_graphs(file, name, source):
    """The graphs that several variants share: `source` is a variant of SCANN+, whose weight is the solid angle."""
    inputs, exact = source["inputs"], source["f64/inputs"]
    sites, edges = inputs["atom_mask"][..., 0], inputs["neighbor_mask"][()]
    group = file.create_group(f"graphs/{name}")
    group["structures"] = [str(s) for s in source.attrs["structures"]]
    write(group, "site_ptr", np.append(0, np.cumsum(sites.sum(1))).astype(np.int32))
    write(group, "edge_ptr", np.append(0, np.cumsum(edges.sum(2)[sites])).astype(np.int32))
    write(group, "nbr", inputs["neighbors"][()][edges].astype(np.int32))
    write(group, "z", inputs["atomic"][()][sites].astype(np.uint8))
    write(group, "r", exact["neighbor_distance"][()][edges])
    omega = exact["neighbor_weight"][()]
    write(group, "omega", omega[edges])
    largest = np.maximum(omega.max(2, keepdims=True), np.finfo(float).tiny)
    write(group, "weight", (omega / largest)[edges])
    write(group, "y", inputs["y"][()])


def check_inputs(variant, graph):
    """Every variant sees its shared graph, and nothing else."""
    inputs, exact = variant["inputs"], variant["f64/inputs"]
    sites, edges = inputs["atom_mask"][..., 0], inputs["neighbor_mask"][()]
    weight = exact["neighbor_weight"][()][edges]
    assert np.array_equal(inputs["neighbors"][()][edges], graph["nbr"][()])
    assert np.array_equal(np.append(0, np.cumsum(edges.sum(2)[sites])), graph["edge_ptr"][()])
    assert np.array_equal(exact["neighbor_distance"][()][edges], graph["r"][()])
    assert np.array_equal(weight, graph["omega"][()]) or np.array_equal(weight, graph["weight"][()])
    assert np.array_equal(inputs["y"][()], graph["y"][()])
    assert list(variant.attrs["structures"]) == [s.decode() for s in graph["structures"][()]]


def vector(group, variant, config, reshape=np.ravel):
    """The weights, or what has their names, as one vector in the order of parameter_table."""
    names = [name.removesuffix(":0") for name in variant.attrs["weight_names"]]
    arrays = [group[name][()] for name in names]
    assert [a.shape for a in arrays] == [entry.shape for entry in parameter_table(config)]
    return np.concatenate([np.ravel(reshape(a)) for a in arrays])


def write_layers(group, outputs, config, sites, edges):
    """Every layer's output without padding. Names: docs/design.md section 2; a folder for each layer."""
    write(group, "site", rounded(outputs["dense_embed"][()][sites]))
    for layer in range(config.n_layers):
        number = f"_{layer}" if layer else ""
        local, folder = outputs[f"local_attention{number}"], group.create_group(f"layer{layer}")
        write(folder, "geometry", rounded(local["geometry"][()][edges]))
        write(folder, "alpha", rounded(np.moveaxis(local["attn"][()], 1, 3)[edges]))
        write(folder, "context", rounded(local["context"][()][sites]))
        if config.residual:
            write(folder, "residual", rounded(outputs[f"residual_norm{number}"][()][sites]))
    write(group, "after", rounded(outputs["after_Lc"][()][sites]))
    write(group, "struct", rounded(outputs["global_attention/context"][()]))
    write(group, "hidden", rounded(outputs["bf_property"][()]))


def write_numbers(group, name, variant, config):
    """Predictions, losses, attention, gradients and Adam steps in one precision."""
    numbers = variant[group.name.rsplit("/", 1)[1]]
    sites, edges = variant["inputs/atom_mask"][..., 0], variant["inputs/neighbor_mask"][()]
    write(group, "pred", numbers["pred"][:, 0])
    for loss in ("loss_rmse", "loss_l2", "loss_total"):
        group.attrs[loss] = numbers[loss][()]
    double = group.name.endswith("f64")
    if double:
        write(group, "beta", numbers["outputs/global_attention/attn"][..., 0][sites])
        if name not in SMALL:
            write_layers(group.create_group("outputs"), numbers["outputs"], config, sites, edges)
    if name == "full_plus":
        if double:
            write(group, "grad_norms", vector(numbers["grads"], variant, config, np.linalg.norm))
    elif double:
        write(group, "grads", vector(numbers["grads"], variant, config, rounded))
    elif name in EXACT_STEPS:
        write(group, "grads", vector(numbers["grads"], variant, config))
    if name in EXACT_STEPS:
        group.attrs["adam3_losses"] = numbers["adam3/losses"][()]
        if double:
            write(group, "adam3", vector(numbers["adam3/weights"], variant, config))


def write_variant(file, name, variant, config):
    group = file.create_group(f"variants/{name}")
    group.attrs["config"] = to_toml(Config(model=config, graph=suggest_graph(config)))
    table = parameter_table(config)
    group.attrs["parameters"] = json.dumps({entry.name: entry.shape for entry in table})
    crystals = variant["inputs/atom_mask"].shape[0] == file["graphs/crystals/y"].size
    group["graph"] = file["graphs/crystals" if crystals else "graphs/molecules"]
    check_inputs(variant, group["graph"])
    sites = variant["inputs/atom_mask"][..., 0]
    if config.ring:
        write(group, "ring", variant["inputs/ring_aromatic"][()][sites].astype(np.uint8))
    if config.features == "cgcnn":
        write(group, "features", variant["inputs/atomic"][()][sites].astype(np.uint8))
    if name in SAME_AS:
        twin = file[f"variants/{SAME_AS[name]}"]
        assert np.array_equal(vector(variant["weights"], variant, config), twin["parameters"][()])
        assert np.array_equal(variant["f64/pred"][:, 0], twin["f64/pred"][()])
        group["parameters"], group["f64"], group["f32"] = twin["parameters"], twin["f64"], twin["f32"]
        return
    if name != "full_plus":
        write(group, "parameters", vector(variant["weights"], variant, config))
    for precision in ("f64", "f32"):
        write_numbers(group.create_group(precision), name, variant, config)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent.parent / "tests" / "data")
    options = parser.parse_args()
    models = options.reference / "models"
    (options.out / "keras").mkdir(parents=True, exist_ok=True)
    for model in sorted(models.glob("s_*.h5")):
        packed = gzip.compress(model.read_bytes(), 9, mtime=0)
        (options.out / "keras" / f"{model.name}.gz").write_bytes(packed)
    with (
        h5py.File(options.reference / "network.h5") as source,
        h5py.File(options.out / "network.h5", "w", libver=("v110", "v110")) as file,  # which every h5py reads
    ):
        file.attrs["source"] = "authors' code (sinhvt3421/scann--material 1.0, MIT), reduced by make_fixtures.py"
        write_graphs(file, "molecules", source["s_plus"])
        write_graphs(file, "crystals", source["s_plus_crys"])
        for name in sorted(set(source) - {"sgdr"}):
            write_variant(file, name, source[name], read_keras(models / f"{name}.h5")[0])
        file.copy(source["sgdr"], "sgdr")


if __name__ == "__main__":
    main()
