"""Side by side with peers and with what is inside; each prints ratios."""

import os

# Before torch starts its threads: waiting threads that spin take the core from the one that works whenever
# something else runs beside the benchmark.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
