"""Where the tests find what they test, and the reference values."""

from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "tests/data"
# Unoptimized programs: tiny networks run for milliseconds and compile for seconds. XLA's newer emitters of fused loops take
# 60 % of what is left; jaxlib 0.11 has no others.
QUICK_COMPILES = "--xla_backend_optimization_level=0" + (
    " --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""
)
