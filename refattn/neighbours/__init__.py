"""Voronoi neighbours of crystals, slabs, wires, molecules and clusters, without a network and for any program.

    from refattn.neighbours import voronoi
    found = voronoi(atoms)
    found.i, found.j, found.image, found.vector, found.r, found.omega, found.area, found.volume

The cells are the true ones of the structure in its periodic directions: no cutoff is chosen, and none is too small.
"""

from refattn.neighbours.arrays import edge_index, neighbour_list
from refattn.neighbours.cells import Facets, voronoi, voronoi_many
from refattn.neighbours.voronoi_nn import VoronoiNN

__all__ = ["Facets", "VoronoiNN", "edge_index", "neighbour_list", "voronoi", "voronoi_many"]
