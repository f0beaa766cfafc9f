"""Tests of extras: they run wherever the extra can be installed, and say why where it cannot."""

import importlib.util
import platform
import sys

import pytest

# As in setup.cfg, extra `test`. Elsewhere tblite has no wheel, or not for every version of the system.
XTB_WHEEL = sys.platform == "linux" and platform.machine() == "x86_64"
needs_crepes = pytest.mark.skipif(importlib.util.find_spec("crepes") is None, reason="crepes is not installed")
needs_pyscf = pytest.mark.skipif(importlib.util.find_spec("pyscf") is None, reason="the extra pyscf is not installed")
needs_rdkit = pytest.mark.skipif(importlib.util.find_spec("rdkit") is None, reason="RDKit is not installed")
needs_spglib = pytest.mark.skipif(importlib.util.find_spec("spglib") is None, reason="spglib is not installed")
needs_xtb = pytest.mark.skipif(
    not XTB_WHEEL and importlib.util.find_spec("tblite") is None, reason="tblite has no wheel for this platform"
)
