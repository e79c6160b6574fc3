import pytest

from mpt_jax.data.own import paths


@pytest.mark.parametrize(
    ("path", "folder", "inside"),
    [("/a/b", "/a", True), ("/a", "/a", True), ("/ab", "/a", False), ("/", "/a", False), ("/a", "/", True)],
)
def test_inside(path, folder, inside):
    assert paths.is_inside(path, folder) == inside


def test_names_of_files_that_are_not_utf8_are_not_text():
    assert paths.is_text("größe.png") and not paths.is_text(b"\xff.png".decode(errors="surrogateescape"))
