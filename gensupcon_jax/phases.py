"""The phases into which the wall time of a run is divided, in the order in which they are shown."""

# Name in results.json -> words. Every second of a run belongs to one of them.
PHASES = {
    "import": "Python and imports",
    "data": "data and checks",
    "compile": "tracing and compiling",
    "input_wait": "waiting for images",
    "step": "training steps",
    "evaluation": "evaluation while training",
    "save": "waiting for checkpoints",
    "final_evaluation": "final evaluation",
    "report": "report",
    "lost": "steps that a kill undid",
    "other": "other",
}
