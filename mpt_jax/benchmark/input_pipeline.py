"""Speed of streamed images: decoded and cropped per second, against PyTorch's loader, and how long a step waits."""

import contextlib
import dataclasses
import functools
import importlib.util
import pathlib
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpt_jax import data, training
from mpt_jax.benchmark.rounds import Log, alternate, peer_milliseconds
from mpt_jax.benchmark.workload import Setup, make_inputs, make_state
from mpt_jax.data import photos
from mpt_jax.data.feeding import stream
from mpt_jax.errors import InputError
from mpt_jax.objectives import METHODS
from mpt_jax.runtime import hardware
from mpt_jax.runtime.provenance import provenance
from mpt_jax.training import loop, sharding

SIZES = ((375, 500), (333, 500), (500, 375), (375, 500))  # height and width of most images of ImageNet


def measure(
    setup: Setup,
    log: Log,
    *,
    folder: str,
    batches: int,
    workers: int,
    train_steps: int,
) -> dict[str, Any]:
    """Measure images per second against the peer, and the share of a train step spent waiting for images."""
    batch, images, image_size = setup.batch or 64, setup.images or 256, setup.image_size or 224
    if train_steps:  # refused before anything is measured
        setup.network()
        sharding.check_batch(sharding.make_mesh(), batch, 1, "--batch")
    with _files(folder, images, log) as place:
        paths = sorted(place.rglob("*.jpg"))
        if not paths:
            raise InputError(f"--data {folder} holds no files *.jpg; expected a folder with some, at any depth")
        split = stream.Stream(
            stream.Files(paths), np.arange(len(paths)), (image_size, image_size, 3), "imagenet", workers=workers
        )
        contestants = {"ours": functools.partial(_milliseconds, split, batch, batches)}
        cores = hardware.num_cores()
        peer = (
            f"{shlex.quote(sys.executable)} -m mpt_jax.benchmark.torch_loader {shlex.quote(str(place))} "
            f"--batch {batch} --batches {batches} --image-size {image_size} "
            f"--workers {workers or (cores if cores > 1 else 0)}"  # on one core a worker process only costs time
        )
        if importlib.util.find_spec("torch"):
            contestants["peer"] = functools.partial(peer_milliseconds, peer, batch)
        else:
            log("PyTorch is not installed, so nothing is compared: pip install 'mpt_jax[torch]'")
        times = alternate(setup.rounds, contestants, log)
        result = {
            "benchmark": "input",
            **provenance(hardware.facts(jax.device_count())),
            "files": len(paths),
            "bytes_per_file": sum(path.stat().st_size for path in paths) // len(paths),
            "image_size": image_size,
            "batch": batch,
            "cores": cores,
            "workers": workers,
            "rounds": setup.rounds,
            "rows": [_row(name, times[name], batch, cores) for name in times],
        }
        if "peer" in times:
            ratios = [theirs / mine for mine, theirs in zip(times["ours"], times["peer"], strict=True)]
            ratio = statistics.median(times["peer"]) / statistics.median(times["ours"])
            result |= {"peer": peer, "ratio": ratio, "ratios": ratios}
        if train_steps:
            result["training"] = _measure_waiting(dataclasses.replace(setup, batch=batch), log, split, train_steps)
    return result


def _row(name: str, times: Sequence[float], batch: int, cores: int) -> dict[str, Any]:
    median = statistics.median(times)
    rate = 1e3 * batch / median
    return {
        "name": name,
        "ms": list(times),
        "ms_per_image": median / batch,
        "images_per_second": rate,
        "images_per_second_per_core": rate / cores,
    }


@contextlib.contextmanager
def _files(given: str, number: int, log: Log) -> Iterator[pathlib.Path]:
    """Yield the given folder of images, or a temporary one with generated files."""
    if given:
        if not pathlib.Path(given).is_dir():
            raise InputError(f"--data {given} is not a folder; expected one with files *.jpg, at any depth")
        yield pathlib.Path(given)
        return
    with tempfile.TemporaryDirectory() as made:
        log(f"generating {number} JPEG files")
        for i in range(number):
            size, pattern = SIZES[i % len(SIZES)], photos.CLASSES[i % len(photos.CLASSES)]
            jpeg = photos.photograph(pattern, *size, np.random.default_rng(i), quality=94)
            (pathlib.Path(made) / f"{i:05d}.jpg").write_bytes(jpeg)
        yield pathlib.Path(made)


def _milliseconds(split: stream.Stream, batch: int, batches: int) -> float:
    """Measure a batch on its way from files to the device: the median of three epochs, the first batches excluded."""
    keys = jax.random.split(jax.random.key(0), 1)
    order = data.Shuffled(keys, keys, num_examples=len(split), batch_size=batch)
    out = []
    with data.Reader(split, order) as reader:
        for number in range(4):
            started = time.perf_counter()
            for _ in range(batches if number else 2):
                images = np.empty((1, batch, *split.image_shape), np.uint8)
                reader.fill(images)
                jax.block_until_ready(jax.device_put(images))
            out.append(1e3 * (time.perf_counter() - started) / batches)
    return statistics.median(out[1:])


def _measure_waiting(setup: Setup, log: Log, split: stream.Stream, steps: int) -> dict[str, Any]:
    """Measure a step on images that are on the device already, and on streamed ones."""
    mesh, row = sharding.make_mesh(), METHODS["no_treatment"]
    # The stream augments by itself. Calls are short, so that there are several.
    recipe = dataclasses.replace(setup.recipe(), augmentation=data.Augmentation(), steps_per_call=max(1, steps // 4))
    labels = np.zeros(len(split), np.int32)
    inputs = make_inputs(setup, [row], labels)
    state = make_state(recipe, inputs, split.image_shape, 1)
    state = jax.device_put(state, sharding.state_shardings(mesh, state))
    feed = loop.make_feed(recipe, mesh, inputs, split)
    inputs = training.place(mesh, inputs)
    ready = feed.window(0, feed.steps)

    def run(state: Any, window: Any, begin: int, stop: int) -> Any:
        return training.train_steps(recipe, mesh, state, inputs, window, jnp.int32(begin), jnp.int32(stop))[0]

    state = jax.block_until_ready(run(state, ready, 0, 1))
    milliseconds = {}
    for name, window in (("device", lambda begin, stop: ready), ("streamed", feed.window)):
        if name == "streamed":
            window(0, 1)  # starts the readers
        started, step = time.perf_counter(), 1
        while step <= steps:
            stop = min(steps + 1, step + feed.steps)
            state = run(state, window(step, stop), step, stop)
            step = stop
        jax.block_until_ready(state)
        milliseconds[name] = 1e3 * (time.perf_counter() - started) / steps
        log(f"{setup.model}, {name}: {milliseconds[name]:,.0f} ms a step")
    feed.close()
    share = max(0.0, 1 - milliseconds["device"] / milliseconds["streamed"])
    return {
        "model": setup.model,
        "steps": steps,
        "device_ms": milliseconds["device"],
        "streamed_ms": milliseconds["streamed"],
        "waiting_share": share,
    }
