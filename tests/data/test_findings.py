import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpt_jax.data import findings
from mpt_jax.errors import InputError


def test_long_lists_are_counted_and_cut_and_printable():
    names = [f"{i}\x1b[2J\n{'x' * 300}" for i in range(1000)]
    with pytest.raises(InputError) as caught:
        findings.resolve("pets", {"bad images": names, "none of these": []}, "error")
    text = str(caught.value)
    assert r"bad images (1000): 0\x1b[2J\nxxx" in text and "and 995 more" in text and "none of these" not in text
    assert len(text) < 1300 and text.isprintable()
    (finding,) = findings.resolve("pets", {"bad images": names, "none of these": []}, "skip")
    assert finding.names == tuple(names) and str(finding).startswith(r"bad images, skipped (1000): 0\x1b[2J\n")
    assert findings.resolve("pets", {"none of these": []}, "error") == ()


@given(st.lists(st.integers(0, 5), max_size=20), st.lists(st.integers(0, 5), max_size=5), st.booleans())
def test_shared_rows_have_the_same_pixels(train, test, floats):
    one = lambda value: np.arange(6).reshape(2, 3) == value  # noqa: E731
    make = lambda values: np.array([one(v) for v in values]).reshape(-1, 2, 3)  # noqa: E731
    kind = np.float32 if floats else np.uint8
    found = findings.shared_rows(make(train).astype(kind)[:, ::-1], make(test).astype(kind)[:, ::-1])
    assert found.tolist() == [row for row, value in enumerate(train) if value in test]


@given(st.lists(st.text(max_size=2)))
def test_without_duplicates_every_value_occurs_once(values):
    repeated = findings.duplicates(values)
    kept = [value for i, value in enumerate(values) if i not in repeated]
    assert kept == list(dict.fromkeys(values))


@pytest.mark.parametrize("pair", [("cafe\u0301", "caf\xe9"), ("hot  dog", "hot dog"), ("owl", "owl ")])
def test_classes_that_print_alike_are_an_error_that_shows_their_difference(pair):
    with pytest.raises(InputError) as caught:
        findings.similar_names("folder menu", ["tea", *pair])
    shown = " and ".join(ascii(name) for name in sorted(pair))
    assert str(caught.value).startswith(f"folder menu has classes whose names print alike: {shown}; expected one name")
    assert str(caught.value).isprintable()


def test_classes_that_may_be_one_are_named():
    found = findings.similar_names("pets", ["Cat", "cat", "hot-dog", "hot dog", "ﬁg", "fig", "owl"])
    assert [(finding.names, finding.outcome) for finding in found] == [
        (("'Cat' and 'cat'", "'fig' and 'ﬁg'", "'hot dog' and 'hot-dog'"), "kept apart")
    ]
    assert findings.similar_names("pets", ["cat", "owl", "1", "10"]) == ()


def test_rows_and_files_with_several_labels(tmp_path):
    contents = [b"aa", b"b", b"aa", b"cc", b"b", b"cc"]
    labels = np.array([0, 1, 2, 3, 1, 3])
    files = [tmp_path / str(row) for row in range(len(contents))]
    for path, content in zip(files, contents, strict=True):
        path.write_bytes(content)
    assert findings.contradictory_files(files, labels).tolist() == [0, 2]
    rows = np.array([[ord(content[:1].decode())] for content in contents], np.uint8)
    assert findings.contradictory_rows(rows, labels).tolist() == [0, 2]
