"""A data set of photographs of different sizes, prepared once."""

import load_dataset
import pytest


@pytest.fixture(scope="session")
def photos_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    load_dataset.load_photos(folder)
    return folder
