"""The train command on a folder of images: faults are reported, fixed and skipped, and changed images are refused."""

import json

import numpy as np
import pytest
import tiny_network
from PIL import Image
from sklearn.datasets import load_digits

from mpt_jax import train

pytestmark = pytest.mark.usefixtures("one_device", "without_plots")

CONFIG = (
    f"""
NETWORK = {tiny_network.NAME!r}
"""
    + """
def get_config():
    return {
        "dataset": {"name": "folder", "channels": 1, "image_size": 8, "resize": 9},
        "optimizer": {"epochs": 1, "batch_size": 16, "learning_rate": 0.05},
        "update": {"schedule": [2, 4], "methods": ["no_treatment"]},
        "model": {"name": NETWORK},
    }
"""
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Save forty images of each of the digits 0 to 3 in folders whose names sort in another order."""
    root, raw = tmp_path_factory.mktemp("digits"), load_digits()
    for label, name in enumerate(("zero", "one", "two", "three")):
        (root / "train" / name).mkdir(parents=True)
        for i, row in enumerate(np.flatnonzero(raw.target == label)[:40]):
            Image.fromarray(np.uint8(raw.images[row] * 15)).save(root / f"train/{name}/{i:02d}.png")
    return root


def test_faults_of_a_folder_are_reported_and_changed_images_are_refused_on_resume(images, tmp_path, capsys):
    (tmp_path / "config.py").write_text(CONFIG)
    (images / "train/two/broken.png").write_bytes(b"\x89PNG")
    command = [f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/run", f"--config.dataset.data_dir={images}"]
    order = "--config.dataset.class_order=zero,one,..."
    assert train.main([*command, order]) == 2
    error = capsys.readouterr().err
    assert "train/two/broken.png" in error and "dataset.on_bad_image=skip" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert train.main([*command, order, "--config.dataset.on_bad_image=skip"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "skipped (1): train/two/broken.png" in printed and "held out for testing" in printed
    report = json.loads((tmp_path / "run/report.json").read_text())
    card = json.loads((tmp_path / "run/releases/r1-no_treatment-seed0/card.json").read_text())
    assert card["resizing"] == {"resize": 9, "interpolation": "bicubic"}
    assert report["classes"] == {"order": ["zero", "one", "three", "two"], "schedule": [2, 4], "not_new": 2}
    with np.load(tmp_path / "run/predictions/r1-no_treatment-seed0.npz", allow_pickle=False) as file:
        assert all(name.startswith("train/") and name.endswith(".png") for name in file["ids"])
        assert 8 < len(file["ids"]) < 80
    # resume with a renamed image, and with another image of the same name
    resumed = [*command, order, "--config.dataset.on_bad_image=skip"]
    one, other, pixels = images / "train/two/07.png", images / "train/two/!new.png", images / "train/two/08.png"
    one.rename(other)
    for more in ([], ["--plan"]):
        assert train.main([*resumed, *more]) == 2
        error = capsys.readouterr().err
        assert "run was started with other " in error and "labels and ids" in error and error.count("\n") == 1
    other.rename(one)
    before = pixels.read_bytes()
    Image.fromarray(255 - np.asarray(Image.open(pixels))).save(pixels)
    assert train.main(resumed) == 2
    assert "images; restore those" in capsys.readouterr().err
    pixels.write_bytes(before)
    assert train.main(resumed) == 0
