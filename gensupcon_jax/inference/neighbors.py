"""The command: gensupcon neighbors runs/photos cat.jpg --in holiday."""

import shlex
from argparse import Namespace
from typing import TYPE_CHECKING

from gensupcon_jax import command_line
from gensupcon_jax.data.list_forms import list_form_of
from gensupcon_jax.errors import UserError
from gensupcon_jax.extras import quiet_tensorflow
from gensupcon_jax.inference.command_flags import add_encoder, add_output, check_source, checked_output_if_given
from gensupcon_jax.paths import LocalPath, Path, as_path

if TYPE_CHECKING:
    from gensupcon_jax.inference.embed_files import FeatureTable
    from gensupcon_jax.inference.encoder import Encoder
    from gensupcon_jax.inference.images import ImageFiles


def main(arguments: list[str], program: str) -> None:
    """Print the images of a set that are nearest to each query, and write a gallery; UserError for a mistake."""
    quiet_tensorflow()
    options = build_parser(program).parse(arguments)
    check_source(options.source)
    output = checked_output_if_given(options, ".html")
    searched_path = as_path(options.searched)
    is_features = searched_path.suffix == ".npz" and searched_path.exists()
    if not (is_features or searched_path.is_dir() or list_form_of(options.searched)):
        found = "is a file" if searched_path.exists() else "does not exist"
        raise UserError(
            f"--in is {options.searched}, which {found}; allowed: a folder, a list (.csv, .parquet), or an .npz of "
            "gensupcon embed"
        )
    # After the arguments: a wrong one is reported before these are imported.
    from gensupcon_jax.inference import command_pass
    from gensupcon_jax.inference.embed_files import FeatureTable

    searched = _searched(options.searched)
    queries = command_pass.images_of(options.queries)
    _check_queries(queries)
    encoder = command_pass.load_encoder(options)
    if isinstance(searched, FeatureTable):
        _check_same_encoder(searched, encoder, options)
    from gensupcon_jax.inference import neighbors_search

    query_features = _encoded_queries(encoder, queries, options)
    stored = _of_table(searched) if isinstance(searched, FeatureTable) else _of_images(encoder, searched, options)
    results = neighbors_search.search((_paths(queries), query_features), stored, options.num_neighbors)
    if output:
        _write(output, results, encoder, options, shlex.join([*program.split(), *arguments]))
    if not isinstance(searched, FeatureTable):
        command_pass.list_damaged(searched, None)
    print(neighbors_search.results_text(results))
    if output:
        print(f"\ngallery: {output}")


def build_parser(program: str) -> command_line.Parser:
    """The arguments of neighbors."""
    parser = command_line.Parser(
        program,
        "List the images of a folder that are most similar to each query: rank, cosine of the features, file. A query whose own "
        "file is in the folder is not listed as its own neighbor.\n\n"
        f"examples: {program} runs/photos cat.jpg --in holiday --output neighbors.html\n"
        f"          {program} runs/photos cat.jpg dog.jpg --in holiday.npz",
    )
    add_encoder(parser)
    parser.add_argument("queries", metavar="QUERY", nargs="+", help="image files, or a folder of them")
    parser.add_argument(
        "--in",
        dest="searched",
        metavar="FOLDER|FILE",
        required=True,
        help="the images to search: a folder, a list, or an .npz that `gensupcon embed` wrote with the same SOURCE and --step",
    )
    parser.add_argument(
        "--num_neighbors",
        metavar="N",
        type=command_line.whole_number(1),
        default=5,
        help="neighbors of each query (default: %(default)d)",
    )
    add_output(parser, "also write a gallery: a new .html file with thumbnails, which needs no network")
    return parser


def _searched(searched: str) -> "FeatureTable | ImageFiles":
    """The features of --in, where it is an .npz, else its images."""
    from gensupcon_jax.inference.command_pass import images_of
    from gensupcon_jax.inference.embed_files import read_features

    path = as_path(searched)
    return read_features(path) if path.suffix == ".npz" and not path.is_dir() else images_of([searched])


def _check_queries(queries: "ImageFiles") -> None:
    """UserError if a query cannot be decoded."""
    if queries.damaged:
        name, why = queries.damaged[0]
        raise UserError(f"the query {name} cannot be decoded ({why}); allowed: JPEG, PNG, WebP, BMP and GIF images")


def _encoded_queries(encoder: "Encoder", queries: "ImageFiles", options: Namespace):
    """The features of the queries; UserError if one cannot be decoded."""
    from gensupcon_jax.inference.command_pass import encoded

    try:
        return encoded(encoder, queries, options).features
    finally:
        _check_queries(queries)  # also where none of them could be decoded


def _check_same_encoder(table: "FeatureTable", encoder: "Encoder", options: Namespace) -> None:
    """UserError if the features of --in are of another encoder."""
    if table.about.fingerprint == encoder.fingerprint and table.features.shape[1] == encoder.num_features:
        return
    here, there = (_described(source, step) for source, step in ((encoder.source, encoder.step), table.about[:2]))
    same = " of that time, which has other weights now" if here == there else ""
    raise UserError(
        f"--in is {options.searched}, whose features are of another encoder ({there}{same}) than SOURCE ({here}); give that "
        f"SOURCE and --step, or write it again: gensupcon embed {options.source} FOLDER --output {options.searched} --overwrite"
    )


def _described(source: str, step: int | str | None) -> str:
    return f"{source}, step {step}" if step not in (None, "") else source


def _of_table(table: "FeatureTable"):
    here = LocalPath.cwd()
    paths = [LocalPath(table.about.folder) / name for name in table.names]
    return [str(path.relative_to(here) if path.is_relative_to(here) else path) for path in paths], table.features


def _of_images(encoder: "Encoder", found: "ImageFiles", options: Namespace):
    """The paths of the images of --in that can be decoded, and their features."""
    from gensupcon_jax.inference.command_pass import encoded

    result = encoded(encoder, found, options)
    paths = _paths(found)
    return [paths[row] for row in result.rows], result.features


def _paths(found: "ImageFiles") -> list[str]:
    return [found.split.where(row) for row in range(found.split.num_images)]


def _write(output: Path, results, encoder: "Encoder", options: Namespace, command: str) -> None:
    from gensupcon_jax.inference import neighbors_gallery

    facts = [("encoder", _described(encoder.source, encoder.step)), ("images of", options.searched)]
    neighbors_gallery.write_gallery(output, results, facts=facts, command=command)
