"""Lets the tests run from a checkout as well as with the package installed."""

import importlib.util
import sys
import types
from pathlib import Path

ROOT = Path(__file__).parent.parent

if importlib.util.find_spec("refattn") is None:
    sys.path.insert(0, str(ROOT))
if importlib.util.find_spec("refattn.cli") is None:  # an installation maps the folder `cli` to refattn.cli (setup.cfg)
    cli = types.ModuleType("refattn.cli")
    cli.__path__ = [str(ROOT / "cli")]
    sys.modules["refattn.cli"] = cli
