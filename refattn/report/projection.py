"""From vectors to points in a plane: principal components, and UMAP where it is installed."""

import dataclasses
from collections.abc import Callable

import h5py
import numpy as np

from refattn.common.threads import workers
from refattn.errors import DataError, MissingExtra
from refattn.report.embedding_file import row_blocks

FEWEST = 5  # points that UMAP can lay out: its start needs more than three besides the one it looks from


@dataclasses.dataclass(frozen=True)
class PrincipalComponents:
    """The two directions of largest variance of vectors in G dimensions.

    Attributes
    ----------
    mean : (G,) float64
    axes : (2, G) float64                  of length 1; the entry of largest magnitude is positive
    variance_fraction : (2,) float64       part of the variance along each axis; 0 where there is no variance
    """

    mean: np.ndarray
    axes: np.ndarray
    variance_fraction: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n, 2): y[n,a] = sum_g axes[a,g] (x[n,g] - mean[g])."""
        return (x - self.mean) @ self.axes.T


@workers(1)  # of BLAS's own threads one: the same bits on any number of cores
def principal_components(data: h5py.Dataset | np.ndarray) -> PrincipalComponents:
    """Principal components of the rows of `data`, in two passes over it: the mean, then the covariance.

    C[g,h] = 1/n sum_n (x[n,g] - mean[g]) (x[n,h] - mean[h]);  C v = lambda v;  variance_fraction = lambda / trace C

    The directions are not scaled: all entries of a vector come from one layer and have one kind of magnitude.

    Parameters
    ----------
    data : (n, G) h5py.Dataset or array of float, n > 0; read block by block, summed in float64

    Source   Pearson, Philos. Mag. 2, 559 (1901); Hotelling, J. Educ. Psychol. 24, 417 (1933)
    """
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in row_blocks(data)) / len(data)
    covariance = sum((block - mean).T @ (block - mean) for block in row_blocks(data)) / len(data)
    variance, vectors = np.linalg.eigh(covariance)  # ascending
    axes = np.zeros((2, len(mean)))  # the second stays zero for vectors of one entry
    axes[: len(mean)] = vectors.T[::-1][:2]
    axes *= np.where(axes[np.arange(2), np.abs(axes).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    fraction = np.zeros(2)
    if np.trace(covariance) > 0:
        fraction[: len(mean)] = np.maximum(variance[::-1][:2], 0) / np.trace(covariance)
    return PrincipalComponents(mean, axes, fraction)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Points in a plane.

    xy : (m, 2) float64
    axes : (str, str)                      what the axes are
    pca : PrincipalComponents or None      where they are principal components
    """

    xy: np.ndarray
    axes: tuple[str, str]
    pca: PrincipalComponents | None = None


def pca_layout() -> Callable[..., Layout]:
    """A function (data, rows) that lays out the rows (m,) of data (n, G) along the principal components of all."""

    def lay_out(data, rows):
        pca = principal_components(data)
        xy = np.concatenate([pca(block) for block in row_blocks(data, rows)])
        parts = (f"{100 * fraction:.1f} % of the variance" for fraction in pca.variance_fraction)
        return Layout(xy, tuple(f"PC {number} ({part})" for number, part in enumerate(parts, 1)), pca)

    return lay_out


def umap_layout() -> Callable[..., Layout]:
    """A function (data, rows) that lays out the rows (m,) of data (n, G) by UMAP with its own settings, seed 0.

    Neighbours in the plane are neighbours among the vectors; distances between groups mean little. In contrast to
    principal components the rows are held in memory, and another version of umap-learn may give another map.

    Raises MissingExtra without the `umap` extra; the function DataError for fewer than FEWEST rows.

    Source   McInnes, Healy and Melville, arXiv 1802.03426 (2018)
    """
    try:
        from umap import UMAP
    except ImportError:
        raise MissingExtra(
            "umap-learn is not installed: run `pip install 'refattn[umap]'` for --map umap, or take --map pca"
        ) from None

    def lay_out(data, rows):
        if len(rows) < FEWEST:
            raise DataError(f"a UMAP of {len(rows)} points has no meaning; give at least {FEWEST}, or take --map pca")
        x = np.concatenate(list(row_blocks(data, rows)))
        n_neighbours = min(15, len(x) - 1)
        xy = UMAP(n_neighbors=n_neighbours, random_state=0, n_jobs=1).fit_transform(x)
        return Layout(xy.astype(np.float64), ("UMAP 1", "UMAP 2"))

    return lay_out


LAYOUTS = {"pca": pca_layout, "umap": umap_layout}
