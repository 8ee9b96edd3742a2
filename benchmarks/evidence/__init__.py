"""Where the method wins, and by how much: experiments as plans, results as lines, docs/evidence.md from both.

    python -m benchmarks.evidence run budget --minutes 30 --jobs 2
    python -m benchmarks.evidence status
    python -m benchmarks.evidence page

A plan (`plans/NAME.toml`) is committed before its runs. Each finished run is a line of `docs/evidence/NAME.jsonl`.
"""
