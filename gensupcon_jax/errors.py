"""How a run ends early: by a mistake that a user can mend, or because it was asked to. `main.py` prints one line for each."""


class UserError(ValueError):
    """Says what was found, what is allowed and which field to change."""


class RunStopped(Exception):  # noqa: N818  (nothing went wrong)
    """The run was asked to stop and has saved its state; the message says how far it is."""
