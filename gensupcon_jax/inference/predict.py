"""The command: gensupcon predict runs/photos holiday --output holiday.csv."""

from typing import TYPE_CHECKING, Any

from gensupcon_jax import command_line
from gensupcon_jax.extras import quiet_tensorflow
from gensupcon_jax.inference.command_flags import (
    add_encoder,
    add_images,
    add_output,
    check_source,
    checked_output_if_given,
)

if TYPE_CHECKING:
    from gensupcon_jax.inference.encoder import Predictions


def main(arguments: list[str], program: str) -> None:
    """Predict the classes of images, and score them where their folders are classes; UserError for a mistake."""
    quiet_tensorflow()
    options = build_parser(program).parse(arguments)
    check_source(options.source)
    output = checked_output_if_given(options, ".csv")
    # After the arguments: a wrong one is reported before these are imported.
    from gensupcon_jax.inference import command_pass
    from gensupcon_jax.inference.embed_files import write_rows
    from gensupcon_jax.text import aligned, counted

    found = command_pass.images_of(options.images)
    command_pass.check_damaged(found, strict=options.strict)
    encoder = command_pass.load_encoder(options)
    encoder.check_predicts()
    encoded = command_pass.encoded(encoder, found, options, output)
    predictions = encoder.classify(encoded.features, encoded.logits)
    names, folders = ([each[row] for row in encoded.rows] for each in (found.names, found.folders))
    header, rows = _table(names, predictions, options.top, is_whole=bool(output))
    if output:
        write_rows(
            output, [*header, found.grouping], [[*row, each or ""] for row, each in zip(rows, folders, strict=True)]
        )
        command_pass.finish_parts(output)
    else:
        print(aligned([header, *rows], left=range(0, len(header), 1)))
    command_pass.list_damaged(found, output)
    if output:
        things = {"several": "labels", "value": "values"}.get(predictions.label_kind, "classes")
        by = {"ridge": "ridge regression"}.get(predictions.predictor, predictions.predictor)
        print(f"{counted(len(rows), 'image')}, {things} by {'' if by == 'k-NN' else 'the '}{by}: {output}")
    _print_scores(folders, predictions, found.grouping)


def build_parser(program: str) -> command_line.Parser:
    """The arguments of predict."""
    parser = command_line.Parser(
        program,
        "Predict the class of each image: by the classifier of the run, else by the linear probe that it kept, else by k-NN on "
        "its training images. With several labels per image, the probability of each label. Where the folders of the images, or "
        "their labels in a list, are classes, their accuracy, precision, recall and F1 are printed."
        f"\n\nexample: {program} runs/photos holiday --output holiday.csv",
    )
    add_encoder(parser)
    add_images(parser)
    add_output(parser, "new .csv file: name, class and probability, most likely first (default: they are printed)")
    parser.add_argument(
        "--top",
        metavar="N",
        type=command_line.whole_number(1),
        default=3,
        help="classes listed for each image (default: %(default)d)",
    )
    return parser


def _table(
    names: list[str], predictions: "Predictions", most: int, *, is_whole: bool
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: name, then class and probability, the most likely first.

    With several labels per image: name, labels, and, is_whole, a column with the probability of each label.
    """
    import numpy as np

    if predictions.label_kind == "several":
        return _labels_table(names, predictions, most, is_whole=is_whole)
    if predictions.values is not None:
        return ["name", "value"], [
            [name, f"{value:.6g}"] for name, value in zip(names, predictions.values, strict=True)
        ]
    probabilities = predictions.probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :most]
    header = ["name", "class", "probability"]
    for place in range(2, order.shape[1] + 1):
        header += [f"class_{place}", f"probability_{place}"]
    rows = []
    for name, classes, row in zip(names, order, probabilities, strict=True):
        cells = [(predictions.name_of(number), f"{row[number]:.6f}") for number in classes]
        rows.append([name, *(cell for pair in cells for cell in pair)])
    return header, rows


def _labels_table(
    names: list[str], predictions: "Predictions", most: int, *, is_whole: bool
) -> tuple[list[str], list[list[str]]]:
    import numpy as np

    probabilities = predictions.probabilities
    if is_whole:
        header = ["name", "labels", *map(predictions.name_of, range(probabilities.shape[1]))]
        columns: Any = [[f"{value:.6f}" for value in row] for row in probabilities]
    else:
        header = ["name", "labels", "most likely"]
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :most]
        columns = [
            [", ".join(f"{predictions.name_of(label)} {row[label]:.2f}" for label in labels)]
            for labels, row in zip(order, probabilities, strict=True)
        ]
    return header, [
        [name, labels or "-", *cells] for name, labels, cells in zip(names, predictions.names, columns, strict=True)
    ]


def _print_scores(folders: list[str | None], predictions: "Predictions", grouping: str) -> None:
    """Accuracy and the table of classes where folders, or labels of a list, are classes, and a warning where one is not."""
    from gensupcon_jax.inference import command_pass, predict_scores

    if not any(folders) or not predictions.class_names or predictions.label_kind != "class":
        return
    scores = predict_scores.folder_scores(folders, predictions.classes, predictions.class_names, grouping)
    if scores.sentence:
        command_pass.tell(f"warning: {scores.sentence}")
    if scores.num_images:
        print(f"\n{predict_scores.scores_text(scores)}")
