"""The published data sets: where their files are, how to know them, who made them, and which source reads them.

What stands here was looked up in public code and documentation, not at the servers themselves; every fact has its
source beside it, and what could not be found is absent and not guessed.

Figshare answers programs with an empty "202 Accepted" at figshare.com/ndownloader; the two addresses below are spared
that (github.com/neuromorphs/tonic/pull/337, github.com/automl/nanoTabPFN/pull/12).
"""

import typing

from refattn.data.sources import qm9
from refattn.errors import DataError


class RemoteFile(typing.NamedTuple):
    """A file to download: its name on the disk, addresses to try in turn, bytes, checksums in hexadecimal.

    `size` None and an empty checksum stand for what is not known. Without an address it is to be got by hand from
    the page `page`, and to be given the name `name`.
    """

    name: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    md5: str = ""
    sha256: str = ""
    page: str = ""


class PublishedSet(typing.NamedTuple):
    """A data set of the literature. The first file is what `refattn prepare` reads, in `format` of registry.FORMATS."""

    description: str
    files: tuple[RemoteFile, ...]
    format: str
    options: str  # of refattn prepare, beside SOURCE and OUT: the neighbour rule of the authors' experiment
    homepage: str
    licence: str
    citation: str


def _figshare(number):
    return (f"https://ndownloader.figshare.com/files/{number}", f"https://api.figshare.com/v2/file/download/{number}")


# Sizes and SHA-256: tensorflow/datasets, tensorflow_datasets/datasets/qm9/checksums.tsv. The MD5 are figshare's own.
UNCHARACTERISED = RemoteFile(
    "uncharacterized.txt",
    _figshare(3195404),
    486_752,
    "a361887bacb427b8a0ce7903d92a53b4",
    "3aa5115d540b356de94791d4a74c3bf1ed91c469ecf52a4f5d7cc0506fe02e24",
)
QM9_XYZ = RemoteFile(
    "dsgdb9nsd.xyz.tar.bz2",
    _figshare(3195389),
    86_144_227,
    "ad1ebd51ee7f5b3a6e32e974e5d54012",
    "3a63848ac80691bdb8d41834b575afad345b9300d7a2db0c38adb7f6eaa8360c",
)
# Address: DeepChem, deepchem/molnet/load_function/qm9_datasets.py. SHA-256: recorded alike by two unrelated projects
# that download it from there; DeepChem itself publishes none.
QM9_SDF = RemoteFile(
    "gdb9.tar.gz",
    ("https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/gdb9.tar.gz",),
    sha256="45255048ac6d83ea4b923ecdf7d6fb6dc62bfec5e80fbc5bcfd93a62157a31db",
)
# Address: the authors' mp2018.py. Neither size nor checksum were found.
MATERIALS_PROJECT = RemoteFile("mp.2018.6.1.json.zip", _figshare(15087992))
# Addresses: the authors' fullerene.py and smfe.py. Neither sizes nor checksums were found. Their pt_graphene.py names
# fullerene.zip too, so the name and the address of the Pt/graphene archive are not known.
ZENODO = "https://zenodo.org/records/8435481"
FULLERENE = RemoteFile("fullerene.zip", (f"{ZENODO}/files/fullerene.zip?download=1",))
PT_GRAPHENE = RemoteFile("pt_graphene.zip", page=ZENODO)
SMFE12 = RemoteFile("smfe12.zip", (f"{ZENODO}/files/smfe12.zip?download=1",))

SCANN = (
    "T.-S. Vu, M.-Q. Ha, D.-N. Nguyen, V.-C. Nguyen, Y. Abe, T. Tran, H. Tran, H. Kino, T. Miyake, K. Tsuda, "
    "H.-C. Dam, Towards understanding structure-property relations in materials with interpretable deep learning, "
    "npj Computational Materials 9, 215 (2023), doi 10.1038/s41524-023-01163-9"
)
SMFE12_CITATION = (  # reference 3 of the authors' README.md
    f"{SCANN}; D.-N. Nguyen, H. Kino, T. Miyake et al., Explainable active learning in investigating structure-"
    "stability of SmFe12-a-b XaYb structures, MRS Bulletin 48, 31-44 (2023), doi 10.1557/s43577-022-00372-9"
)
MEGNET = (
    "C. Chen, W. Ye, Y. Zuo, C. Zheng, S. P. Ong, Graph Networks as a Universal Machine Learning Framework for "
    "Molecules and Crystals, Chemistry of Materials 31, 3564-3572 (2019), doi 10.1021/acs.chemmater.9b01294; "
    "A. Jain et al., The Materials Project, APL Materials 1, 011002 (2013), doi 10.1063/1.4812323"
)
NOT_STATED = f"not stated in the authors' code; see {ZENODO}"
# The Materials Project's terms of use, as quoted at matsci.org/t/45437; that of the figshare record was not found.
MP_LICENCE = "CC BY 4.0 (Materials Project, terms of use)"

PUBLISHED = {
    "qm9": PublishedSet(
        "QM9: 133,885 organic molecules with up to 9 atoms of C, N, O and F, B3LYP/6-31G(2df,p); 15 properties, eV",
        (QM9_XYZ, UNCHARACTERISED),
        "qm9",
        "--rule upstream",
        "https://doi.org/10.6084/m9.figshare.978904",
        qm9.LICENCE,
        qm9.CITATION,
    ),
    "qm9_sdf": PublishedSet(
        "QM9 as DeepChem distributes it: the same molecules, positions rounded to 1e-4 Å, properties in a table",
        (QM9_SDF, UNCHARACTERISED),
        "qm9_sdf",
        "--rule upstream",
        "https://doi.org/10.6084/m9.figshare.978904",
        qm9.LICENCE,
        qm9.CITATION,
    ),
    "materials_project": PublishedSet(
        "Materials Project 2018.6.1 of MEGNet: 69,239 crystals, PBE; e_form (eV/atom), band_gap (eV)",
        (MATERIALS_PROJECT,),
        "materials_project",
        "--rule upstream --r-max 6",
        "https://figshare.com/articles/Graphs_of_materials_project/7451351",
        MP_LICENCE,
        MEGNET,
    ),
    "fullerene_md": PublishedSet(
        "fullerene-MD of the SCANN authors: 3,000 snapshots; homo, lumo, energy (eV)",
        (FULLERENE,),
        "fullerene_md",
        "--rule upstream",
        ZENODO,
        NOT_STATED,
        SCANN,
    ),
    "pt_graphene_md": PublishedSet(
        "Pt/graphene-MD of the SCANN authors: 21,666 snapshots; energy, deformation_energy (eV)",
        (PT_GRAPHENE,),
        "pt_graphene_md",
        "--rule upstream --omega-min 0.2",
        ZENODO,
        NOT_STATED,
        SCANN,
    ),
    "smfe12": PublishedSet(
        "SmFe12-CD of the SCANN authors: 3,304 substituted SmFe12 crystals; e_form (eV/atom)",
        (SMFE12,),
        "smfe12",
        "--rule upstream --r-max 6",
        ZENODO,
        NOT_STATED,
        SMFE12_CITATION,
    ),
}


def published_set(name: str) -> PublishedSet:
    """The PublishedSet `name`. Raises DataError, with the names that there are."""
    if name not in PUBLISHED:
        raise DataError(f"there is no published set {name!r}; there are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]
