"""Which source reads which path."""

import fnmatch
from pathlib import Path

from refattn.data.sources.files import FilesSource
from refattn.data.sources.matbench import MatbenchSource
from refattn.data.sources.materials_project import MaterialsProjectSource
from refattn.data.sources.qm9 import QM9Source
from refattn.data.sources.qm9_sdf import QM9SdfSource
from refattn.data.sources.scann_archives import FullereneArchive, PtGrapheneArchive
from refattn.data.sources.smfe12 import SmFe12Source
from refattn.data.store import Source
from refattn.errors import DataError

QM9 = {"qm9": QM9Source, "qm9_sdf": QM9SdfSource}
OTHERS = {
    "materials_project": MaterialsProjectSource,
    "fullerene_md": FullereneArchive,
    "pt_graphene_md": PtGrapheneArchive,
    "smfe12": SmFe12Source,
    "matbench": MatbenchSource,
}
FORMATS = ("auto", "files", *QM9, *OTHERS)
# What "auto" knows, by the name of a file or of a file in a folder.
FILES = {
    "dsgdb9nsd*.tar*": "qm9",
    "gdb9.tar*": "qm9_sdf",
    "gdb9.sdf": "qm9_sdf",
    "mp.2018.6.1.json*": "materials_project",
    "fullerene.zip": "fullerene_md",
    "pt_graphene.zip": "pt_graphene_md",
    "smfe12.zip": "smfe12",
    "matbench_*.json*": "matbench",
}
FOLDERS = {"dsgdb9nsd_*.xyz": "qm9", "gdb9.sdf.csv": "qm9_sdf"}


def open_source(
    path: Path | str,
    format: str = "auto",
    labels: Path | str | None = None,
    uncharacterised: Path | str | None = None,
    keep_uncharacterised: bool = False,
    **options,
) -> Source:
    """The source for `path`: an iterable of Record with name, licence, citation and fraction.

    Parameters
    ----------
    format : str, one of FORMATS
        "auto" knows the published sets by the names of their files (`refattn data list`), and takes everything else
        for files that ASE reads.
    labels : path, optional                                    see FilesSource
    uncharacterised, keep_uncharacterised : optional           see QM9Source
    **options : label_names, recursive, id_from                 see FilesSource

    What cannot be read is collected in `skipped` of a FilesSource.

    Raises DataError as the sources do.
    """
    path = Path(path)
    if format == "auto":
        format = guess_format(path)
    if format == "files":
        source = FilesSource(path, labels, **options)
        source.skip_quietly()
        return source
    if labels:
        raise DataError(f"{labels}: {format} comes with its labels; leave --labels out, or choose --format files")
    if format in QM9:
        return QM9[format](path, uncharacterised, keep_uncharacterised)
    return OTHERS[format](path)


def guess_format(path: Path) -> str:
    """The format that the names speak for."""
    if path.is_dir():
        return next((format for pattern, format in FOLDERS.items() if any(path.glob(pattern))), "files")
    return next((format for pattern, format in FILES.items() if fnmatch.fnmatchcase(path.name, pattern)), "files")
