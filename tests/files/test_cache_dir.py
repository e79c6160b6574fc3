"""The cache folder is where the platform's users expect it."""

import os
import sys

import pytest

from mpt_jax.files import cache_dir

linux = pytest.mark.skipif(sys.platform != "linux", reason="the folders of Linux")


@linux
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"XDG_CACHE_HOME": "/caches"}, "/caches"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/me/.cache"),  # its standard ignores relative paths
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache"),
        ({}, "/home/me/.cache"),
    ],
)
def test_it_follows_the_environment(variables, expected, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache_dir.path("compiled")) == f"{expected}/mpt_jax/compiled"


@linux
def test_without_a_home_folder_it_raises(monkeypatch):
    def no_user(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", no_user)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(RuntimeError, match="home"):
        cache_dir.path("compiled")
    assert not os.path.exists("~")
