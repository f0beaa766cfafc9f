"""An oracle for those who write the network in another framework, and a comparison that names the first wrong layer.

refattn oracle RUN --out oracle.h5
refattn.testing.compare(function, "oracle.h5")
"""

from refattn.testing.compare import Comparison, compare
from refattn.testing.oracle import Oracle, Step, make_oracle, outputs_of, read_oracle, write_oracle

__all__ = ["Comparison", "Oracle", "Step", "compare", "make_oracle", "outputs_of", "read_oracle", "write_oracle"]
