"""How fast `gensupcon embed` goes through a folder, against the training input without a network on the same cores, in one run.

    python -m benchmarks.embed [--images 600] [--threads 2] [--folder FOLDER]

JPEGs of 500 x 375 are generated (about 107 kB each), or those of a folder are taken. The network is tiny, so the images are the
limit. Each part is a process of its own; rounds alternate, the best of each counts. A round of `embed` reads the headers, encodes
all images and writes the file; reading the encoder and compiling it, which are done once, are not counted.
"""

import argparse
import json
import tempfile
from argparse import Namespace
from pathlib import Path

from benchmarks.input import BATCH, ROUNDS, SIZE, ask, input_alone, measured, start, write_images


def tiny_run(folder: str, workdir: Path) -> None:
    """The workdir of an encoder that costs next to nothing: every 32nd pixel, and a linear layer."""
    import flax.linen as nn

    from gensupcon_jax.configs import common
    from gensupcon_jax.models import ENCODERS
    from gensupcon_jax.run.train import train_and_evaluate

    class FewPixels(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            return nn.Dense(16)(images[:, ::32, ::32].reshape(len(images), -1))

    ENCODERS["few_pixels"] = lambda settings: FewPixels()
    if workdir.exists():
        return
    config = common.get_config()
    config.update_from_flattened_dict(
        {
            "dataset.name": f"folder:{folder}", "dataset.image_size": SIZE, "model.name": "few_pixels", "steps": 0,
            "batch_size": BATCH, "evaluate.neighbors": (1,), "evaluate.linear_probe": False,
        }
    )  # fmt: skip
    train_and_evaluate(config, workdir)


def embed_all(connection, folder: str, threads: int, workdir: Path) -> None:
    """A process that embeds the folder for each message."""
    import dataclasses

    tiny_run(folder, workdir)
    from gensupcon_jax.inference import command_pass, embed, embed_files

    encoder = command_pass.load_encoder(Namespace(source=str(workdir), step="last"))
    output = workdir / "features.npz"
    options = Namespace(images=[folder], batch_size=BATCH, part_limit=10_000, strict=False, predict=False)

    def once() -> int:
        found = command_pass.images_of(options.images)
        found = found._replace(split=dataclasses.replace(found.split, num_threads=threads))
        encoded = command_pass.encoded(encoder, found, options, output)
        embed_files.write_features(output, embed.feature_table(encoder, found, encoded, options))
        return len(encoded.rows)

    once()
    while connection.recv():
        connection.send(measured(once))


def main() -> None:
    """Print the figures of one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="a folder of <split>/<class>/<image> in place of generated images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "images"
        if options.folder is None:
            write_images(folder, options.images)
        processes = {
            "embed": start(embed_all, str(folder), options.threads, Path(temporary) / "run"),
            "training input, 2 crops": start(input_alone, f"folder:{folder}", None, options.threads, 2),
            "training input, 1 crop": start(input_alone, f"folder:{folder}", None, options.threads, 1),
        }
        rounds = {name: [] for name in processes}
        for _ in range(ROUNDS):
            for name, connection in processes.items():
                rounds[name].append(ask(connection))
        for connection in processes.values():
            connection.send("")  # ends it
    best = {name: max(found["images_per_second"] for found in rows) for name, rows in rounds.items()}
    cpu = {name: min(found["cpu_milliseconds"] for found in rows) for name, rows in rounds.items()}
    ratios = {name: best["embed"] / rate for name, rate in best.items() if name != "embed"}
    print(json.dumps({"images_per_second": best, "cpu_milliseconds_per_image": cpu, "embed_against": ratios}, indent=2))


if __name__ == "__main__":
    main()
