"""pymatgen's VoronoiNN by the cells of this package: the same questions, the same answers, without its cutoff."""

import inspect

import ase
import numpy as np

from refattn.neighbours.cells import Facets, voronoi


class VoronoiNN:
    """Takes the place of pymatgen.analysis.local_env.VoronoiNN, for ordered structures of pymatgen.

    Parameters
    ----------
    tol : float               facets with less than this part of the site's largest weight are no neighbours
    targets                   element or list of elements that neighbours must be; None: any
    cutoff, allow_pathological, compute_adj_neighbors     taken and not used: cells are complete, and adjacency is free
    weight : str              what weighs a neighbour: a number of get_voronoi_polyhedra
    extra_nn_info : bool      whether get_nn_info has the facet's numbers as `poly_info`
    """

    structures_allowed = True
    molecules_allowed = False

    def __init__(
        self,
        tol: float = 0,
        targets: object = None,
        cutoff: float = 13.0,
        allow_pathological: bool = False,
        weight: str = "solid_angle",
        extra_nn_info: bool = True,
        compute_adj_neighbors: bool = True,
    ):
        self.tol = tol
        self.targets = targets
        self.weight = weight
        self.extra_nn_info = extra_nn_info
        self.cutoff, self.allow_pathological, self.compute_adj_neighbors = cutoff, allow_pathological, True

    def get_voronoi_polyhedra(self, structure: object, n: int) -> dict[int, dict]:
        """The facets of site n: number -> site, normal, solid_angle, volume, face_dist, area, n_verts, verts,
        adj_neighbors, as of pymatgen; `verts` counts the corners of the structure's facets."""
        return self._cell(structure, _facets(structure), n)

    def get_all_voronoi_polyhedra(self, structure: object) -> list[dict[int, dict]]:
        """get_voronoi_polyhedra of every site, in the time of one."""
        found = _facets(structure)
        return [self._cell(structure, found, n) for n in range(len(structure))]

    def get_nn_info(self, structure: object, n: int) -> list[dict]:
        """Neighbours of site n: dicts of site, image, weight (1 for the largest), site_index, and poly_info."""
        return self._neighbours(self.get_voronoi_polyhedra(structure, n))

    def get_all_nn_info(self, structure: object) -> list[list[dict]]:
        """get_nn_info of every site."""
        return [self._neighbours(cell) for cell in self.get_all_voronoi_polyhedra(structure)]

    def __getattr__(self, name: str) -> object:
        """Everything else of pymatgen's NearNeighbors, such as get_cn, which stands on the above."""
        try:
            from pymatgen.core.local_env import NearNeighbors
        except ImportError:  # before 2025 it stood elsewhere
            try:
                from pymatgen.analysis.local_env import NearNeighbors
            except ImportError:
                raise AttributeError(f"without pymatgen a VoronoiNN has no {name}") from None
        return inspect.getattr_static(NearNeighbors, name).__get__(self, type(self))

    def _cell(self, structure, found: Facets, n):
        from pymatgen.core.structure import PeriodicNeighbor

        start, end = found.ptr[n : n + 2]
        cell = {}
        for f in range(start, end):
            neighbour = structure[int(found.j[f])]
            if not self._is_target(neighbour):
                continue
            image = found.image[f]
            place = neighbour.frac_coords + image
            corners = np.arange(*found.corner_ptr[f : f + 2])
            known = {"nn_distance": found.r[f], "index": int(found.j[f]), "image": tuple(image.tolist())}
            site = PeriodicNeighbor(neighbour.species, place, structure.lattice, neighbour.properties, **known)
            cell[int(f - start)] = {
                "site": site,
                "normal": found.vector[f] / found.r[f],
                "solid_angle": float(found.omega[f]),
                "volume": float(found.volume[f]),
                "face_dist": float(found.r[f] / 2),
                "area": float(found.area[f]),
                "n_verts": len(corners),
                "verts": corners.tolist(),
                "adj_neighbors": (found.beside[corners] - start).tolist(),
            }
        for facet in cell.values():
            facet["adj_neighbors"] = [key for key in facet["adj_neighbors"] if key in cell]
        return cell

    def _is_target(self, site):
        if self.targets is None:
            return True
        wanted = self.targets if isinstance(self.targets, list | tuple | set) else [self.targets]
        return bool({str(element) for element in wanted} & {str(element) for element in site.species})

    def _neighbours(self, cell):
        largest = max((facet[self.weight] for facet in cell.values()), default=1.0)
        found = []
        for facet in cell.values():
            if facet[self.weight] <= self.tol * largest:
                continue
            site = facet["site"]
            weight = facet[self.weight] / largest
            found.append({"site": site, "image": site.image, "weight": weight, "site_index": site.index})
            if self.extra_nn_info:
                found[-1]["poly_info"] = {name: value for name, value in facet.items() if name != "site"}
        return found


def _facets(structure):
    """Facets of a structure of pymatgen; what stands on a site does not matter to them."""
    positions, cell = structure.cart_coords, structure.lattice.matrix
    atoms = ase.Atoms(np.ones(len(structure)), positions, cell=cell, pbc=structure.lattice.pbc)
    return voronoi(atoms, name=structure.formula)
