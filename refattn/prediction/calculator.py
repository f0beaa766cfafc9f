"""The model as an ASE calculator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import Calculator as ASECalculator
from ase.calculators.calculator import PropertyNotImplementedError, all_changes

from refattn.data.sources.labels import LABELS
from refattn.prediction.predictor import load


def is_total_energy(target: str, unit: str) -> bool:
    """Whether a label is what ASE calls `energy`: in eV, and growing with the size of the structure."""
    return unit == "eV" and LABELS.get(target, {}).get("kind") == "extensive"


class Calculator(ASECalculator):
    """ASE calculator of a trained model.

    `results` holds the prediction under the label's name, as `energy` too where the label is a total energy in eV and
    the readout a sum, and the global attention of every atom under `attention` (N,). `implemented_properties` has their
    names. A calculator can be copied and sent to another process. Of K > 1 targets every label has its name, and
    `attention` is (N, K).

    Forces are not defined: the graph changes in steps when atoms move, so the property jumps with it.

    Parameters
    ----------
    run : path     a run directory or a model file

    Raises RunError as refattn.load does.
    """

    def __init__(self, run: Path | str, device: str = "cpu", **kwargs):
        super().__init__(**kwargs)
        self.model = load(run, device)
        grows = self.model.config.model.readout == "sum"  # another readout has no total energy: two copies have one's
        pairs = zip(self.model.targets, self.model.units, strict=True)
        self.energies = [target for target, unit in pairs if grows and is_total_energy(target, unit)]
        names = {*self.model.targets, "attention"} - {"energy"}
        self.implemented_properties = sorted(names) + ["energy"] * bool(self.energies)

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        prediction = self.model.predict(self.atoms, n_threads=1)
        self.results = {"attention": prediction.attention[0]}
        self.results |= {found.target: float(found.value[0]) for found in prediction.of_targets()}
        if self.energies:
            self.results["energy"] = self.results[self.energies[0]]
        elif "energy" in properties:
            raise self._no_energy()

    def get_property(self, name: str, atoms: ase.Atoms | None = None, allow_calculation: bool = True) -> Any:
        if name in ("forces", "stress", "stresses"):
            raise PropertyNotImplementedError("this model has no forces: its graph changes in steps when atoms move")
        if name == "energy" and not self.energies:
            raise self._no_energy()
        return super().get_property(name, atoms, allow_calculation)

    def _no_energy(self):
        pairs = zip(self.model.targets, self.model.units, strict=True)
        names = ", ".join(f"{target} ({unit or 'no unit'})" for target, unit in pairs)
        readout = self.model.config.model.readout
        return PropertyNotImplementedError(
            f"the model predicts {names} with the readout {readout}, which is not an energy in eV that grows with the "
            "size of a structure"
        )

    def get_attention(self, atoms: ase.Atoms) -> np.ndarray:
        """Global attention (N,) of the atoms; it sums to 1. Of K > 1 targets (N, K)."""
        self.calculate(atoms, properties=())
        return self.results["attention"]
