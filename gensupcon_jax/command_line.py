"""Common parts of all commands: parser, help, and suggestions for misspellings. Standard library only."""

import argparse
import contextlib
import difflib
import errno
import io
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from gensupcon_jax import disk, signals
from gensupcon_jax.errors import UserError

_SIGPIPE_STATUS = 141  # of a program that the closing of a pipe ends, as shells report it


class Command(NamedTuple):
    """The function of a command, called with the arguments and the program name, and a line of help."""

    run: Callable[[list[str], str], None]
    help: str


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are UserErrors; --a-flag is --a_flag, -flag is --flag.

    program: the words before the arguments, as in "gensupcon train". Errors for unknown arguments list the flags of the
    parser itself; those of further groups are listed by --help only.
    """

    def __init__(self, program: str, description: str):
        super().__init__(
            prog=program,
            description=description,
            allow_abbrev=False,
            exit_on_error=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse(self, arguments: Sequence[str], other_flags: Sequence[str] = ()) -> argparse.Namespace:
        """The options; UserError for a wrong one. other_flags: further flags of the command, such as `--config.epochs`, which
        are suggested for misspelled flags.
        """
        try:
            options, unknown = self.parse_known_args([self._spelled(argument) for argument in arguments])
        except argparse.ArgumentError as error:
            if error.argument_name is None:  # from Python 3.12 on also for what is missing
                self.error(error.message)
            raise UserError(_sentence(error.argument_name, error.message)) from error
        flag = next((argument for argument in unknown if argument.startswith("-")), None)
        if flag is not None:
            following = list(arguments[list(arguments).index(flag) + 1 :]) if flag in arguments else []
            raise UserError(self._unknown_flag(flag, following, other_flags))
        if unknown:
            raise UserError(f"unknown arguments {' '.join(unknown)}; allowed: {', '.join(self._allowed(other_flags))}")
        return options

    def error(self, message: str) -> NoReturn:
        """Called by argparse for missing arguments."""
        raise UserError(f"{message}; see {self.prog} --help")

    def flags(self) -> dict[str, argparse.Action]:
        """The long flags by name, without hyphens."""
        return {flag[2:]: action for action in self._actions for flag in action.option_strings if flag[:2] == "--"}

    def _spelled(self, argument: str) -> str:
        name, equals, value = argument.partition("=")
        spelled = name.lstrip("-").replace("-", "_")
        action = self.flags().get(spelled)
        if not name.startswith("-") or action is None:
            return argument
        if action.nargs == 0 and value.lower() in ("true", "false"):
            return f"--{'' if value.lower() == 'true' else 'no'}{spelled}"
        return f"--{spelled}{equals}{value}"

    def _allowed(self, other_flags: Sequence[str]) -> list[str]:
        listed = [action.option_strings[-1] for action in self._optionals._group_actions if action.option_strings]
        listed = [flag for flag in listed if flag not in ("-h", "--help")]
        return [*listed, "--config.field=value"] if other_flags else listed

    def _unknown_flag(self, argument: str, following: Sequence[str], other_flags: Sequence[str]) -> str:
        flag, equals, value = argument.partition("=")
        if not equals and following and not following[0].startswith("-"):
            equals, value = "=", following[0]
        name = flag.lstrip("-").replace("-", "_")
        own = difflib.get_close_matches(name, self.flags(), n=1, cutoff=0.75)
        fields = [] if own else nearest_fields(name, [other.removeprefix("--config.") for other in other_flags])
        suggestions = [f"--{other}" for other in own] + [f"--config.{field}{equals}{value}" for field in fields]
        found = f"{flag} is not a flag of {self.prog}"
        return f"{found}; {did_you_mean(suggestions)}" if suggestions else f"{found}; see {self.prog} --help"


def _sentence(flag: str, message: str) -> str:
    if message.startswith("expected"):
        return f"Missing value for flag {flag}"
    if message.startswith("ignored explicit argument"):
        return f"{flag.partition('/')[0]} takes no value"
    return f"{flag} {message}"


def add_switch(parser: argparse._ActionsContainer, name: str, help: str) -> None:
    """A flag without a value: --name, off by --noname."""
    parser.add_argument(f"--{name}", action="store_true", help=help)
    parser.add_argument(f"--no{name}", action="store_false", dest=name, help=argparse.SUPPRESS)


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """The type of a flag that takes integers in a range."""
    allowed = f"a whole number from {low}" + ("" if high is None else f" to {high}")

    def parsed(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"is {text!r}; allowed: {allowed}")
        return value

    return parsed


def number_from(low: int | float) -> Callable[[str], float]:
    """The type of a flag that takes finite numbers from `low`."""

    def parsed(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= low):
            raise argparse.ArgumentTypeError(f"is {text!r}; allowed: a number from {low:g}")
        return value

    return parsed


def one_of(*names: str) -> Callable[[str], str]:
    """The type of a flag that takes one of these."""

    def parsed(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"is {text!r}; allowed: {', '.join(names)}")
        return text

    return parsed


def with_commas(text: str) -> list[str]:
    """The type of a flag that takes several values."""
    return text.split(",") if text else []


# Names of fields in other programs.
_ABBREVIATIONS = {
    "bs": "batch_size",
    "lr": "learning_rate",
    "wd": "weight_decay",
    "tau": "temperature",
    "num_epochs": "epochs",
    "num_steps": "steps",
    "dataset": "dataset.name",
    "model": "model.name",
    "arch": "model.name",
    "optimizer": "optimizer.name",
    "max_steps": "steps",
}
_MOST_SUGGESTIONS = 3


def nearest_fields(name: str, fields: Iterable[str]) -> list[str]:
    """The dotted fields that `name` may mean, most likely first: those with this last part, then those spelled similarly."""
    fields = list(fields)
    group, _, last = name.rpartition(".")
    last = _ABBREVIATIONS.get(last, last)
    whole = f"{group}.{last}" if group else last
    if whole in fields:
        return [whole]
    of_group = {field.rpartition(".")[2]: field for field in fields if field.rpartition(".")[0] == group}
    if group and of_group:
        return [of_group[close] for close in _close(last, of_group)]
    ending = [field for field in fields if field.endswith(f".{last}")]
    if ending:
        return (_close(whole, ending) or ending)[:_MOST_SUGGESTIONS] if group else ending[:_MOST_SUGGESTIONS]
    endings = _close(last, {field.rpartition(".")[2] for field in fields})
    return (
        _close(whole, fields) or [field for field in fields if field.rpartition(".")[2] in endings][:_MOST_SUGGESTIONS]
    )


def _close(name: str, names: Iterable[str]) -> list[str]:
    """The most similar name, if any."""
    return difflib.get_close_matches(name, list(names), n=1, cutoff=0.7)


def did_you_mean(suggestions: Sequence[str]) -> str:
    """did you mean a, b or c?"""
    *others, last = suggestions
    return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"


def run_named(
    commands: dict[str, Command], arguments: Sequence[str], program: str, description: str, version: str | None = None
) -> None:
    """Run the command named by the first argument with the remaining ones; UserError if there is none.

    --help lists the commands.
    """
    if not arguments:
        raise UserError(f"a command is missing; allowed: {', '.join(commands)}; see {program} --help")
    name, *rest = arguments
    if name in ("-h", "-help", "--help", "help"):
        print(_overview(commands, program, description))
    elif name == "--version" and version is not None:
        print(version)
    elif name in commands:
        commands[name].run(rest, f"{program} {name}")
    else:
        close = difflib.get_close_matches(name, commands, n=1, cutoff=0.6)
        suggestion = f" {did_you_mean(close)}" if close else ""
        raise UserError(f"{name!r} is not a command of {program};{suggestion} allowed: {', '.join(commands)}")


def _overview(commands: dict[str, Command], program: str, description: str) -> str:
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {command.help}" for name, command in commands.items()]
    return "\n".join(
        [
            f"usage: {program} COMMAND ...",
            "",
            description,
            "",
            "commands:",
            *lines,
            "",
            f"{program} COMMAND --help lists what each of them takes.",
        ]
    )


def print_any_text() -> None:
    """Let standard output and error take any file name: a letter that their encoding lacks is printed as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def end(error: UserError | KeyboardInterrupt | OSError) -> NoReturn:
    """End the process with one line per error, status 1, without a traceback; in silence where nobody reads (`| head`).

    An OSError is one line too where the system gives a reason, such as a disk that is full; another one is raised again.
    """
    signals.finished()
    if isinstance(error, OSError):
        if error.errno is None:
            raise error
        _drop_output()
        if isinstance(error, BrokenPipeError):
            sys.exit(_SIGPIPE_STATUS)
        where = "standard output" if error.filename is None else os.fsdecode(error.filename)
        sys.exit(f"error: {disk.line_of(error) or f'{where}: {error.strerror}'}")
    if isinstance(error, KeyboardInterrupt):
        sys.exit("\ninterrupted")
    sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))


def _drop_output() -> None:
    """Send what standard output cannot take to nowhere, else Python complains again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop(sys.stdout)


def _drop(stream: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def unread_output_dropped() -> Iterator[None]:
    """A context in which the closing of the pipe or the terminal that standard output or error goes to changes nothing.

    Of `train ... 2>&1 | tee log` Ctrl-C ends tee as well: what is said then would be an error, and the step would not be saved.
    """
    with contextlib.ExitStack() as redirected:
        for stream, redirect_fn in (
            (sys.stdout, contextlib.redirect_stdout),
            (sys.stderr, contextlib.redirect_stderr),
        ):
            if stream is not None:  # it was closed as the process began
                dropping = _Unread(stream)
                redirected.enter_context(redirect_fn(dropping))
                redirected.callback(dropping.flush)
        yield


class _Unread:
    """A stream that drops what is written from the first time on that it cannot be.

    is_within_line: a signal may come between a line and its end, which `print` writes one after the other.
    """

    def __init__(self, stream: Any):
        self._stream, self.is_within_line = stream, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As that of the stream."""
        written = self._dropping(lambda: self._stream.write(text))
        if text:
            self.is_within_line = text[-1] not in "\r\n"
        return written

    def flush(self) -> None:
        """As that of the stream."""
        self._dropping(self._stream.flush)

    def _dropping(self, write_fn: Callable[[], Any]) -> Any:
        try:
            return write_fn()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            _drop(self._stream)
            return write_fn()
