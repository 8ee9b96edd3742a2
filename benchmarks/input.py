"""How fast the host feeds encoded images: two crops an image, against decoding alone on the same cores, in one run.

    python -m benchmarks.input [--images 600] [--threads 2] [--folder FOLDER] [--short_side 256] [--quality 90]

JPEGs of 500 x 375 are generated (about 107 kB each), or those of a folder are taken. Rounds alternate, the best of each counts.
"Decoding alone" is a pool of threads that read each file and decode it with simplejpeg, and nothing else, in a process of its
own; "tf.data" the same with `tf.io.decode_jpeg`, as TensorFlow comes. "Smaller copy" is what `gensupcon prepare --short-side`
writes of the same images.
"""

import argparse
import functools
import json
import multiprocessing
import multiprocessing.connection
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIZE, VIEWS, BATCH = 224, 2, 64
ROUNDS, EPOCHS_PER_ROUND, EPOCHS = 5, 4, 6


def natural_image(rng: np.random.Generator, height: int = 375, width: int = 500) -> np.ndarray:
    """Noise of all scales, as photographs have it."""
    import cv2

    image = np.zeros((height, width, 3), np.float32)
    for scale in (4, 8, 16, 32, 64, 128):
        small = rng.standard_normal((height // scale + 2, width // scale + 2, 3)).astype(np.float32)
        image += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) * scale**0.6
    image += rng.standard_normal((height, width, 1)) * 9
    image = (image - image.mean()) / image.std() * 55 + 120
    return np.clip(image, 0, 255).astype(np.uint8)


def write_images(folder: Path, num: int) -> None:
    """<folder>/train/<class>/<number>.jpg."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(num):
        place = folder / "train" / f"class_{number % 10}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(natural_image(rng)).save(place / f"{number:05}.jpg", quality=90)


def measured(step_fn: Callable[[], int]) -> dict[str, float]:
    """Images a second and CPU milliseconds an image of a function that gives how many images it went through."""
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    num = step_fn()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"images_per_second": num / seconds, "cpu_milliseconds": 1000 * cpu / num}


def resident_mib() -> float:
    """Memory of this process now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def tensorflow_alone(connection, files: list[str], threads: int) -> None:
    """A process that decodes all files once with tf.data for each message."""
    from gensupcon_jax.extras import quiet_tensorflow

    quiet_tensorflow()
    import tensorflow as tf

    def decode(path):
        return tf.shape(tf.io.decode_jpeg(tf.io.read_file(path), channels=3))[0]

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads + 2

    def once() -> int:
        data = tf.data.Dataset.from_tensor_slices(files).map(decode, num_parallel_calls=threads)
        return sum(len(batch) for batch in data.batch(BATCH).with_options(options))

    once()
    while connection.recv():
        connection.send(measured(once))


def decode_alone(connection, files: list[str], threads: int) -> None:
    """A process that decodes all files once in threads for each message, into memory that is allocated once."""
    import concurrent.futures
    import threading

    import simplejpeg

    own = threading.local()

    def decode(path: str) -> None:
        if not hasattr(own, "pixels"):
            own.pixels = np.empty(2**28, np.uint8)
        with open(path, "rb") as file:  # noqa: PTH123 (as the package reads it)
            simplejpeg.decode_jpeg(file.read(), fastdct=True, buffer=own.pixels)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:

        def once() -> int:
            return len(list(pool.map(decode, files)))

        once()
        while connection.recv():
            connection.send(measured(once))


def copy_alone(connection, name: str, folder: str, threads: int) -> None:
    """A process that reads and decodes the images of a stored copy once in threads for each message."""
    import concurrent.futures

    from gensupcon_jax.data import datasets
    from gensupcon_jax.data.decoding import decode_color, read_encoded

    split = datasets.load(name, folder=folder, image_size=SIZE, num_threads=threads).train

    def decode(index: int) -> None:
        decode_color(read_encoded(split, index))

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:

        def once() -> int:
            return len(list(pool.map(decode, range(split.num_images))))

        once()
        while connection.recv():
            connection.send(measured(once))


def input_alone(connection, name: str, folder: str | None, threads: int, views: int) -> None:
    """A process that makes some epochs of training batches for each message, or several in one go to see its memory."""
    import jax

    from gensupcon_jax.data import datasets
    from gensupcon_jax.data.input_pipeline import HostCrops, train_batches

    settings = {"image_size": SIZE, "num_threads": threads, "validation_fraction": 0.1, "test_fraction": 0.1}
    split = datasets.load(name, folder=folder, **settings).train
    per_epoch = split.num_images // BATCH
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    crops = HostCrops(views, (0.2, 1.0), (3 / 4, 4 / 3))

    def batches_of(first_epoch: int, num_epochs: int):
        steps = range(first_epoch * per_epoch, (first_epoch + num_epochs) * per_epoch)
        return train_batches(split, seed=0, batch_size=BATCH, sharding=place, crops=crops, steps=steps)

    def memory_by_epoch() -> list[int]:
        numbers = (number for number, _ in enumerate(batches_of(0, EPOCHS), start=1))
        return [round(resident_mib()) for number in numbers if number % per_epoch == 0]

    epoch = 0
    while message := connection.recv():
        if message == "memory":
            connection.send({"mib_by_epoch": memory_by_epoch()})
        else:
            connection.send(measured(functools.partial(_count, batches_of(epoch, EPOCHS_PER_ROUND))))
            epoch += EPOCHS_PER_ROUND


def write_smaller(folder: Path, into: Path, short_side: int, quality: int) -> tuple[str, float]:
    """Write the smaller copy of a folder of images; its `dataset.name`, and kB per image."""
    from gensupcon_jax.data.datasets import Reading
    from gensupcon_jax.prepare.smaller_copy import read_original, write_copy
    from gensupcon_jax.prepare.smaller_images import Smaller

    copied = write_copy(read_original(f"folder:{folder}", Reading()), Smaller(short_side, quality), into)
    return f"tfds:{copied.name}", copied.copied_bytes / copied.copied / 1000


def _count(batches) -> int:
    return sum(len(batch.labels) for batch in batches)


def start(target: Callable, *arguments) -> multiprocessing.connection.Connection:
    """The near end of a pipe to a new process."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    multiprocessing.get_context("spawn").Process(target=target, args=(theirs, *arguments), daemon=True).start()
    return ours


def ask(connection, message: str = "round") -> dict:
    """One answer of a process."""
    connection.send(message)
    return connection.recv()


def report(rounds: dict[str, list[dict[str, float]]], threads: int) -> dict:
    """The best rate and the least CPU time of each, and the shares of the stages."""
    best = {name: max(found["images_per_second"] for found in rows) for name, rows in rounds.items()}
    cpu = {name: min(found["cpu_milliseconds"] for found in rows) for name, rows in rounds.items()}
    two, one, alone = cpu["2 crops"], cpu["1 crop"], cpu["decoding alone"]
    smaller = best["2 crops of the smaller copy"]
    return {
        "images_per_second": best,
        "cpu_milliseconds_per_image": cpu,
        "rate_of_decoding_alone": best["2 crops"] / best["decoding alone"],
        "rate_of_the_smaller_copy": {
            "decoding alone": best["decoding the smaller copy alone"] / best["decoding alone"],
            "2 crops": smaller / best["2 crops"],
            "2 crops to decoding the originals alone": smaller / best["decoding alone"],
        },
        "images_per_second_a_core": {"originals": best["2 crops"] / threads, "smaller copy": smaller / threads},
        "share_of_the_second_crop": (two - one) / two,
        "share_of_all_but_decoding": max(0.0, (two - alone) / two),
    }


def main() -> None:
    """Print the figures of one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help="of own images, <folder>/train/<class>/<image>.jpg")
    parser.add_argument("--needed", type=float, help="images a second that a host must deliver, from the plan")
    parser.add_argument("--short_side", type=int, default=256, help="of the smaller copy")
    parser.add_argument("--quality", type=int, default=90, help="JPEG quality of the smaller copy")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or Path(temporary) / "photos")
        if options.folder is None:
            write_images(folder, options.images)
        files = sorted(str(path) for path in folder.glob("train/*/*.jpg"))
        sizes = [Path(file).stat().st_size for file in files]
        copy, kilobytes = write_smaller(folder, Path(temporary), options.short_side, options.quality)
        of_originals = (f"folder:{folder}", None, options.threads)
        processes = {
            "decoding alone": start(decode_alone, files, options.threads),
            "decoding alone with tf.data": start(tensorflow_alone, files, options.threads),
            "2 crops": start(input_alone, *of_originals, VIEWS),
            "1 crop": start(input_alone, *of_originals, 1),
            "decoding the smaller copy alone": start(copy_alone, copy, temporary, options.threads),
            "2 crops of the smaller copy": start(input_alone, copy, temporary, options.threads, VIEWS),
        }
        rounds: dict[str, list] = {name: [] for name in processes}
        for _ in range(ROUNDS):
            for name, connection in processes.items():
                rounds[name].append(ask(connection))
        memory = ask(processes["2 crops"], "memory")
        for connection in processes.values():
            connection.send("")
    found = {
        "images": len(files),
        "kilobytes": sum(sizes) / len(sizes) / 1000,
        "kilobytes_of_the_smaller_copy": kilobytes,
    }
    found |= {"threads": options.threads} | report(rounds, options.threads) | memory
    if options.needed:
        rates = found["images_per_second_a_core"]
        found["cores_needed"] = {name: options.needed / rate for name, rate in rates.items()}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
