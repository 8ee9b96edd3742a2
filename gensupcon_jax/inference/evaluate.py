"""The command: gensupcon evaluate runs/photos --dataset.name=folder:flowers."""

from argparse import SUPPRESS, Namespace
from typing import TYPE_CHECKING, Any

from gensupcon_jax import command_line
from gensupcon_jax.errors import UserError
from gensupcon_jax.extras import quiet_tensorflow
from gensupcon_jax.inference.command_flags import add_encoder, add_output, check_source, checked_output_if_given
from gensupcon_jax.paths import LocalPath, as_path
from gensupcon_jax.store import workdir

if TYPE_CHECKING:
    from gensupcon_jax.data.datasets import Dataset
    from gensupcon_jax.inference.encoder import Encoder

_OF_THE_ENCODER = ("image_size", "channels", "center_share")  # fields of `dataset` that the encoder decides


def main(arguments: list[str], program: str) -> None:
    """Print how good the features of an encoder are on a data set, and write the numbers; UserError for a mistake."""
    quiet_tensorflow()
    from gensupcon_jax.run import recipes

    options = recipes.parse_with_dataset(
        build_parser(program), arguments, lambda options: _saved_config(options.source)
    )
    check_source(options.source)
    _check_fields(options)
    output = checked_output_if_given(options, ".json")
    # After the arguments: a wrong one is reported before these are imported.
    from gensupcon_jax.inference import command_pass, evaluate_scores
    from gensupcon_jax.store.workdir import write_json

    _check_values(options)
    encoder = command_pass.load_encoder(options)
    dataset = _dataset(encoder, options)
    for note in dataset.notes:
        command_pass.tell(note)
    results = evaluate_scores.evaluate_encoder(encoder, dataset, _settings(encoder, dataset, options))
    if output:
        write_json(output, results)
    print(evaluate_scores.results_table(results))
    if output:
        print(f"\nThe same numbers, unrounded: {output}")


def build_parser(program: str) -> command_line.Parser:
    """The arguments of evaluate, without those of the data set."""
    parser = command_line.Parser(
        program,
        "Evaluate the frozen features of an encoder on a data set: k-NN and linear probe, whose settings are chosen on the "
        "validation split; retrieval among the test images (R@1, R@10, mAP); calibration error.\n\n"
        f"examples: {program} runs/photos\n"
        f"          {program} runs/photos --dataset.name=folder:flowers --output flowers.json",
    )
    add_encoder(parser)
    add_output(parser, "also write the numbers to a new .json file")
    fields = parser.add_argument_group("the data set")
    # For --help alone: these arguments are taken out before argparse sees them.
    fields.add_argument(
        "--dataset.field=value",
        dest=SUPPRESS,
        action="store_true",
        help="any field of the data set, for example --dataset.name=folder:flowers or --dataset.test_split=val (default: the "
        "data set of the run, if SOURCE is one)",
    )
    return parser


def _saved_config(source: str) -> dict[str, Any]:
    """The config of the run, if SOURCE is a workdir; the encoder reports what is wrong with it."""
    folder = as_path(source)
    if not (
        folder / "dataset.json"
    ).exists():  # for example a folder of timm's, which has a config.json of another kind
        return {}
    try:
        return workdir.read_json(folder / workdir.CONFIG)
    except UserError:
        return {}


def _check_fields(options: Namespace) -> None:
    """UserError for a field that follows from the encoder, and where no data set is named."""
    wrong = [name for name in _OF_THE_ENCODER if f"dataset.{name}" in options.given]
    if wrong:
        raise UserError(f"dataset.{wrong[0]} is given, but it is that of the encoder; leave it out")
    if "dataset.name" in options.given:
        return
    if not _saved_config(options.source):
        raise UserError(
            f"--dataset.name is missing, and {options.source} is not a run; for example --dataset.name=folder:flowers"
        )
    if options.config.dataset.name == "arrays":
        raise UserError(
            f"{options.source} was trained on arrays from Python, which cannot be read again; "
            "name a data set, for example --dataset.name=folder:flowers"
        )


def _check_values(options: Namespace) -> None:
    """UserError for values that the fields do not allow; all problems are reported together."""
    from gensupcon_jax.run.config_check import refusal
    from gensupcon_jax.text import flatten

    fields = flatten({"dataset": options.config.dataset.to_dict()})
    refused = {name: allowed for name in sorted(options.given) if (allowed := refusal(name, fields[name]))}
    if refused:
        raise UserError(
            "\n".join(f"{name} is {fields[name]!r}; allowed: {allowed}" for name, allowed in refused.items())
        )


def _dataset(encoder: "Encoder", options: Namespace) -> "Dataset":
    """The data set, as the encoder takes its images."""
    from gensupcon_jax.run.run import read_dataset

    config = options.config
    size, _, channels = encoder.image_shape
    config.dataset.update({"image_size": size, "channels": channels, "center_share": encoder.center_share})
    source = as_path(options.source)
    dataset = read_dataset(config, source if source.is_dir() else LocalPath("runs") / source.name)
    if not dataset.has_labels:
        raise UserError(
            f"no training image of {dataset.name} has a label, so there is nothing to evaluate; name a data set with labels, for "
            "example --dataset.name=folder:flowers"
        )
    return dataset.only_labeled()


def _settings(encoder: "Encoder", dataset: "Dataset", options: Namespace):
    from gensupcon_jax.evaluation.choices import default_choices
    from gensupcon_jax.evaluation.final import Settings
    from gensupcon_jax.evaluation.measures import MEASURES

    fields = options.config.evaluate
    sizes = [split.num_images for split in dataset.splits.values()]
    choices = None
    if dataset.validation is None:
        choices = default_choices(fields.neighbors, fields.probe_penalties)
    return Settings.of(
        fields,
        dataset=dataset,
        extraction=encoder.extraction(options.batch_size, sizes),
        choices=choices,
        measures=tuple(MEASURES),
    )
