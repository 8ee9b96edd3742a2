"""Exceptions that end a run early: errors that the user can correct, and stop requests. Each is printed in one line."""


class UserError(ValueError):
    """The message says what was found, what is allowed and which field to change."""


class RunStopped(BaseException):
    """The run was stopped by a signal and has saved its state; the message contains the step.

    No Exception, as KeyboardInterrupt: code that handles each failure of a library, or of a download, must not swallow it.
    """


class StoppedBetween(RunStopped):
    """A signal stopped the run outside of training, where threads of a download or of a decoder may still work."""
