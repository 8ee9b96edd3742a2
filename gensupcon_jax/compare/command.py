"""The command that compares runs: gensupcon compare RUN RUN ... --output compare.html."""

import shlex
from pathlib import Path

from gensupcon_jax import command_line
from gensupcon_jax.errors import UserError


def main(arguments: list[str], program: str) -> None:
    """Compare the runs in these workdirs: a table on the terminal, and a page."""
    options = build_parser(program).parse(arguments)
    output = Path(options.output)
    _check_output(output, overwrite=options.overwrite)
    # Imported here, so that wrong arguments are reported first.
    from gensupcon_jax.compare.page import compare, render_comparison
    from gensupcon_jax.compare.runs import read_runs
    from gensupcon_jax.compare.table import as_text
    from gensupcon_jax.report.page import write_page

    found = compare(read_runs(options.runs))
    print(as_text(found))
    write_page(output, render_comparison(found, shlex.join([*program.split(), *arguments])))
    print(f"\ncomparison: {output}")


def build_parser(program: str) -> command_line.Parser:
    """The parser of the command line of `gensupcon compare`."""
    parser = command_line.Parser(
        program,
        "Compare runs: the fields that differ, their curves over each other, their results with paired tests, and mean and "
        "spread over the seeds.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="the --workdir of a run; 2 or more")
    parser.add_argument(
        "--output", metavar="FILE", default="compare.html", help="the page, an HTML file (default: compare.html)"
    )
    command_line.add_switch(parser, "overwrite", "replace the page if it exists")
    return parser


def _check_output(path: Path, *, overwrite: bool) -> None:
    """UserError unless the page can be written there."""
    if path.is_dir():
        raise UserError(f"--output is {path}, which is a folder; allowed: the path of an HTML file")
    if path.exists() and not overwrite:
        raise UserError(f"--output is {path}, which exists and is kept; choose another path, or add --overwrite")
