"""The one error that a user can mend: `main.py` prints it as one line, without a traceback."""


class UserError(ValueError):
    """Says what was found, what is allowed and which field to change (ours)."""
