"""Where the tests find what they test, and the reference values."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "tests/data"
# Unoptimized programs: tiny networks run for milliseconds and compile for seconds, of which XLA's newer emitters of fused
# loops take 60 %.
QUICK_COMPILES = "--xla_backend_optimization_level=0 --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
