"""SmFe12-CD of the SCANN authors: SmFe12 crystals with substituted iron, and their formation energies.

A zip file with an XYZ file a crystal; its comment line holds `Lattice="..."`, nine numbers in Å, one cell vector after
the other, and the formation energy as the last of its quoted values, in eV/atom. The authors read every
FOLDER/FOLDER/NAME.xyz in the order of the paths.

The archive itself could not be looked at: what stands here is what the authors' own reader expects of it. The reader
rounds cell and positions to float32; here they keep the digits of the file.

Source   sinhvt3421/scann--material 1.0, scann/utils/dataset/smfe.py; Nguyen et al., MRS Bulletin 48, 31 (2023)
"""

import re

import ase
import numpy as np

from refattn.data.sources.scann_archives import ScannArchive, numbers_of
from refattn.errors import DataError

LATTICE = re.compile(r'lattice="([^"]*)"', re.IGNORECASE)


class SmFe12Source(ScannArchive):
    """e_form in eV/atom; see ScannArchive."""

    published = "smfe12"
    depth = 3  # FOLDER/FOLDER/NAME.xyz

    def frame(
        self, comment: str, numbers: list[int], positions: np.ndarray, where: str
    ) -> tuple[ase.Atoms, dict[str, float]]:
        lattice = LATTICE.search(comment)
        quoted = comment.split('"')
        if not lattice or len(quoted) < 5:  # text, cell, text, energy, text
            raise DataError(f'{where}: must hold Lattice="..." and a quoted energy; restore the file')
        cell = np.reshape(numbers_of(lattice[1], 9, f"{where}, Lattice"), (3, 3))
        (e_form,) = numbers_of(quoted[-2], 1, f"{where}, energy")
        return ase.Atoms(numbers, positions, cell=cell, pbc=True), {"e_form": e_form}
