"""Strict JAX settings for every test (8 virtual CPU devices, no silent promotion), and the data folders they share."""

import collections
import importlib.metadata
import os
import pathlib
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # commands that tests start do not touch the user's folders
# Tests compile much and compute little, and the lowest optimisation level compiles fastest.
flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
# A fifth less work for the compiler. Later versions of XLA have no such flag, and refuse flags that they do not know.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    flags += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"

import hypothesis  # noqa: E402
import jax  # noqa: E402
import jax.monitoring  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import sklearn.datasets  # noqa: E402
import tensorflow_datasets as tfds  # noqa: E402

from mpt_jax import data  # noqa: E402
from mpt_jax.config.shipped import common  # noqa: E402, F401 (lists the methods before an example adds one)
from mpt_jax.training import sharding  # noqa: E402

hypothesis.settings.register_profile("mpt_jax", deadline=None, max_examples=40)  # a busy machine must not fail a test
hypothesis.settings.load_profile("mpt_jax")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

collect_ignore = ["torch_reference.py", "torch_vit_reference.py"]  # they import torch, which only the parity tests need

# Tests share compiled programs, also between workers, which inherit the variable.
if "MPT_JAX_TESTS_COMPILED" not in os.environ:
    compiled_programs = tempfile.TemporaryDirectory(prefix="mpt_jax-compiled-")
    os.environ["MPT_JAX_TESTS_COMPILED"] = compiled_programs.name
jax.config.update("jax_enable_compilation_cache", True)
jax.config.update("jax_compilation_cache_dir", os.environ["MPT_JAX_TESTS_COMPILED"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def compiled():
    """How often each function has been compiled during the test, by name."""
    jax.clear_caches()  # what an earlier test compiled would not be counted
    counts = collections.Counter()

    def listen(event, seconds, *, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration":
            counts[fun_name.removeprefix("jit(").removesuffix(")")] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield counts
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def one_device(monkeypatch):
    """Programs for one of the eight devices, which compile faster."""
    make_mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, "make_mesh", lambda devices=None, **layout: make_mesh(jax.devices()[:1], **layout))


@pytest.fixture
def without_plots(monkeypatch):
    """Write reports without plots, which take longer than a short training; fixtures of a module still draw theirs."""
    monkeypatch.setattr("mpt_jax.report.plots.draw", lambda report, thumbnails: {})


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    """A TFDS folder in which the digits have been prepared."""
    folder = tmp_path_factory.mktemp("tfds")
    data.load(data.DatasetConfig("digits", str(folder)), num_classes=10)
    return folder


@pytest.fixture(scope="session")
def features_file(tmp_path_factory):
    """An .npz file of frozen features: the digits' 64 pixels, whose ids are their positions in scikit-learn's array."""
    digits, train = sklearn.datasets.load_digits(), slice(0, 1000)
    arrays = {
        f"{part}_{name}": values[rows]
        for part, rows in (("train", train), ("test", slice(1000, None)))
        for name, values in (
            ("features", digits.data.astype(np.float32)),
            ("labels", digits.target),
            ("ids", np.arange(len(digits.target)) + 1000),
        )
    }
    path = tmp_path_factory.mktemp("features") / "digits.npz"
    np.savez(path, class_names=[f"digit {name}" for name in digits.target_names], **arrays)
    return path


@pytest.fixture(scope="session")
def cifar_dir():
    """A TFDS folder with CIFAR-100, or the test is skipped."""
    given = os.environ.get("MPT_JAX_TFDS_DIR")
    places = [given] if given else [tfds.core.constants.DATA_DIR, ROOT.parent / "shared/data/tfds"]
    for place in map(pathlib.Path, places):
        if (place.expanduser() / "cifar100/3.0.2").is_dir():
            return place.expanduser()
    pytest.skip(f"no cifar100/3.0.2 in {' or '.join(map(str, places))}; name a folder in MPT_JAX_TFDS_DIR")


@pytest.fixture(scope="session")
def store():
    """A bucket called `bucket` behind the interface of Google Cloud Storage, for this process and those it starts."""
    import fake_gcs
    import fsspec.config

    with fake_gcs.served() as served:
        os.environ.update(served.environment)  # not taken back: TensorStore reads it once
        fsspec.config.conf.update({"gcs": {"token": "anon"}, "gs": {"token": "anon"}})  # it has read its own already
        yield served


@pytest.fixture
def bucket(store, tmp_path):
    """A folder in the bucket for this test alone."""
    from mpt_jax.files import storage

    store.fail = lambda method, path: None
    return storage.path(f"gs://bucket/{tmp_path.name}")
