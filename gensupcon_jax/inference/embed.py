"""The command: gensupcon embed runs/photos holiday --output holiday.npz."""

from argparse import Namespace
from typing import TYPE_CHECKING

from gensupcon_jax import command_line
from gensupcon_jax.extras import quiet_tensorflow
from gensupcon_jax.inference.command_flags import (
    add_encoder,
    add_images,
    add_output,
    check_source,
    checked_output,
    names_file,
)
from gensupcon_jax.paths import LocalPath, Path
from gensupcon_jax.text import counted

if TYPE_CHECKING:
    from gensupcon_jax.inference.embed_files import FeatureTable
    from gensupcon_jax.inference.embed_pass import Encoded
    from gensupcon_jax.inference.encoder import Encoder
    from gensupcon_jax.inference.images import ImageFiles

SUFFIXES = (".npz", ".csv", ".parquet", ".npy")


def main(arguments: list[str], program: str) -> None:
    """Write the features of images to a file; UserError for a mistake."""
    quiet_tensorflow()
    options = build_parser(program).parse(arguments)
    check_source(options.source)
    output = checked_output(options.output, SUFFIXES, overwrite=options.overwrite)
    # After the arguments: a wrong one is reported before these are imported.
    from gensupcon_jax.inference import command_pass, embed_files

    embed_files.check_format(output.suffix)
    found = command_pass.images_of(options.images)
    command_pass.check_damaged(found, strict=options.strict)
    encoder = command_pass.load_encoder(options)
    if options.predict:
        encoder.check_predicts()
    encoded = command_pass.encoded(encoder, found, options, output)
    table = feature_table(encoder, found, encoded, options)
    embed_files.write_features(output, table)
    command_pass.list_damaged(found, output)
    command_pass.finish_parts(output)
    print(_summary(output, table))


def build_parser(program: str) -> command_line.Parser:
    """The arguments of embed."""
    parser = command_line.Parser(
        program,
        "Write the features of images to a file: names, and float32 features [image, feature]. Images that cannot be decoded "
        f"are listed and left out.\n\nexample: {program} runs/photos holiday --output holiday.npz",
    )
    add_encoder(parser)
    add_images(parser)
    add_output(parser, "new file: .npz, .csv, .parquet, or .npy (features alone)", required=True)
    command_line.add_switch(parser, "predict", "also write the most likely class of each image and its probability")
    return parser


def feature_table(encoder: "Encoder", found: "ImageFiles", encoded: "Encoded", options: Namespace) -> "FeatureTable":
    """The content of the file."""
    from gensupcon_jax.inference.embed_files import About, FeatureTable

    folder = options.images[0] if LocalPath(options.images[0]).expanduser().is_dir() else "."
    if found.grouping == "label":
        folder = LocalPath(options.images[0]).parent
    table = FeatureTable(
        names=[found.names[row] for row in encoded.rows],
        features=encoded.features,
        about=About(
            source=encoder.source,
            step="" if encoder.step is None else str(encoder.step),
            fingerprint=encoder.fingerprint,
            folder=str(LocalPath(folder).expanduser().absolute()),
        ),
    )
    if not options.predict:
        return table
    predictions = encoder.classify(encoded.features, encoded.logits)
    return table._replace(predictions=predictions.names, probabilities=predictions.probabilities.max(axis=1))


def _summary(output: Path, table: "FeatureTable") -> str:
    num_images, num_features = table.features.shape
    names = f"; their names: {names_file(output)}" if output.suffix == ".npy" else ""
    return f"{counted(num_images, 'image')}, {counted(num_features, 'feature')} each: {output}{names}"
