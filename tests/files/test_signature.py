"""A signature holds for exactly what was signed, with exactly this key; nothing that is read breaks its check."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("model_signing", reason="needs the extra 'signing'")

import damage
import keys
from releases import release

from mpt_jax.errors import InputError
from mpt_jax.files import array_folder, released_model, sealed, signature


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    """The private and the public key of a team."""
    return keys.pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def made(tmp_path_factory, team):
    """A signed release."""
    folder = tmp_path_factory.mktemp("releases") / "one"
    release(folder, "linear")
    assert signature.sign(folder, team[0]) == folder / "model.sig"
    return folder


@pytest.fixture
def signed(made, tmp_path):
    """A copy of the signed release, which has its signature too."""
    return shutil.copytree(made, tmp_path / "copied" / "elsewhere")


def test_a_release_and_its_copies_are_what_was_signed(made, signed, team):
    assert signature.problem(made, team[1]) == signature.problem(signed, team[1]) == ""
    released_model.read(signed)
    before = signature.place(signed).read_bytes()
    signature.sign(signed, team[0])  # once more
    assert signature.place(signed).read_bytes() != before and signature.problem(signed, team[1]) == ""


def test_any_damage_to_any_file_is_found(made, team, tmp_path):
    count = 0
    for copy, name in damage.damaged_copies(made, tmp_path):
        if name.name != "model.sig":
            count += 1
            problem = signature.problem(copy, team[1])
            assert problem.startswith("not what was signed: ") and name.as_posix() in problem
        elif (copy / name).exists():
            assert (copy / name).read_bytes() == (made / name).read_bytes() or signature.problem(copy, team[1])
        else:
            assert signature.problem(copy, team[1]) == f"not signed: there is no {copy / name}"
    assert count >= 4 * 6


@pytest.mark.parametrize("name", ["new.txt", ".hidden", ".gitignore", ".git/config", "model/extra", "model.sig.old"])
def test_an_added_file_is_found(signed, team, name):
    (signed / name).parent.mkdir(exist_ok=True)
    (signed / name).write_text("more")
    assert name in signature.problem(signed, team[1])


def test_a_renamed_file_and_two_swapped_ones_are_found(signed, team):
    first, second = sorted(path for path in (signed / "model").rglob("*") if path.is_file())[:2]
    first.rename(first.with_name("renamed"))
    problem = signature.problem(signed, team[1])
    assert "renamed" in problem and first.relative_to(signed).as_posix() in problem
    second.rename(first)
    first.with_name("renamed").rename(second)
    assert signature.problem(signed, team[1])


def test_a_file_that_is_none_is_found(signed, team):
    path = signed / "card.json"
    content = path.read_bytes()
    path.rename(signed.parent / "card.json")
    path.symlink_to(signed.parent / "card.json")
    assert "card.json" in signature.problem(signed, team[1]) and path.read_bytes() == content
    with pytest.raises(InputError, match="cannot be signed"):
        signature.sign(signed, team[0])
    path.unlink()
    os.mkfifo(path)
    assert signature.problem(signed, team[1])


def test_a_change_that_was_sealed_again_is_found_by_the_key_alone(signed, team):
    largest = max((signed / "model").rglob("d/*"), key=lambda path: path.stat().st_size)
    shutil.copy(largest, largest.with_name("again"))
    card = json.loads((signed / "card.json").read_text()) | {"name": "another"}
    card = sealed.sealed({**card, "files": array_folder.file_digests(signed)})
    (signed / "card.json").write_text(json.dumps(card))
    assert released_model.read_card(signed)["name"] == "another"  # nothing wrong without the key
    assert "card.json" in signature.problem(signed, team[1])


def test_another_teams_key_and_the_signature_of_another_release(made, signed, team, tmp_path):
    own, public = keys.pair(tmp_path, name="other")
    assert signature.problem(signed, public).endswith("was made with another key")
    signature.sign(signed, own)
    assert signature.problem(signed, public) == "" and "another key" in signature.problem(signed, team[1])
    other = tmp_path / "two"
    release(other, "linear", seed=1)
    signature.sign(other, team[0])
    shutil.copy(other / "model.sig", signed / "model.sig")
    assert "not what was signed" in signature.problem(signed, team[1])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 10**5,
        pickle.dumps({}),
        b'{"verificationMaterial": {}}',
        b"x" * 10**6,
    ],
)
def test_a_file_that_is_no_signature_is_a_problem_and_no_error(signed, team, content):
    (signed / "model.sig").write_bytes(content)
    problem = signature.problem(signed, team[1])
    assert problem and problem.isprintable()


def test_every_field_of_a_signature_counts(signed, team):
    path = signed / "model.sig"
    original = json.loads(path.read_text())

    def variants(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield {k: v for k, v in value.items() if k != key}
                for variant in variants(inner):
                    yield {**value, key: variant}
        elif isinstance(value, list):
            yield []
            for variant in variants(value[0]) if value else ():
                yield [variant]
        elif isinstance(value, str) and value:
            yield ""
            yield value[:-5] + ("A" if value[-5] != "A" else "B") + value[-4:]

    changed = [variant for variant in variants(original) if variant != original]
    problems = []
    for variant in changed:
        path.write_text(json.dumps(variant))
        problems.append(signature.problem(signed, team[1]))  # an error that is none of ours would end the test
    assert len([problem for problem in problems if problem]) >= 6  # some fields are hints that nothing depends on


def test_a_gate_record_is_signed_next_to_it(tmp_path, team):
    record = tmp_path / "gate.json"
    record.write_text(json.dumps({"schema": 1, "passed": False, "inputs": []}))
    assert signature.sign(record, team[0]) == tmp_path / "gate.json.sig"
    assert signature.problem(record, team[1]) == "" and signature.require_record(record)["passed"] is False
    moved = shutil.move(record, tmp_path / "kept.json")
    shutil.move(tmp_path / "gate.json.sig", tmp_path / "kept.json.sig")
    assert signature.problem(moved, team[1]) == ""
    moved.write_text(moved.read_text().replace("false", "true"))
    assert signature.problem(moved, team[1]).startswith("not what was signed")
    for text in ("{}", "[1]", "{", '{"schema": 1, "passed": false, "error": "x"}', "[" * 10**5):
        record.write_text(text)
        with pytest.raises(InputError, match=r"gate\.json is not"):
            signature.require_record(record)


@pytest.mark.parametrize("kind", ["rsa", "ed25519", "bitcoin"])
def test_other_kinds_of_keys_are_refused(signed, tmp_path, kind):
    private, public = keys.pair(tmp_path, kind)
    before = (signed / "model.sig").read_bytes()
    for attempt in (lambda: signature.sign(signed, private), lambda: signature.problem(signed, public)):
        with pytest.raises(InputError, match=r"--key .* cannot be used: .*(lliptic|curve)"):
            attempt()
    assert (signed / "model.sig").read_bytes() == before


def test_the_wrong_half_of_a_key_and_files_that_are_none(signed, team, tmp_path):
    (tmp_path / "text").write_text("no key")
    for key in (team[1], tmp_path / "text"):
        with pytest.raises(InputError, match="cannot be used"):
            signature.sign(signed, key)
    for key in (team[0], tmp_path / "text"):
        with pytest.raises(InputError, match="cannot be used"):
            signature.problem(signed, key)
    for attempt in (signature.sign, signature.problem):
        with pytest.raises(InputError, match="is not a file"):
            attempt(signed, tmp_path / "none")


def test_a_key_with_a_password(signed, tmp_path, monkeypatch):
    private, public = keys.pair(tmp_path, "p521", password=b"secret")
    monkeypatch.delenv(signature.PASSWORD, raising=False)
    with pytest.raises(InputError, match="MPT_JAX_KEY_PASSWORD has its password"):
        signature.sign(signed, private)
    monkeypatch.setenv(signature.PASSWORD, "wrong")
    with pytest.raises(InputError, match="MPT_JAX_KEY_PASSWORD has its password"):
        signature.sign(signed, private)
    monkeypatch.setenv(signature.PASSWORD, "secret")
    signature.sign(signed, private)
    assert signature.problem(signed, public) == ""


def test_without_the_library_the_error_names_the_extra(signed, team, monkeypatch):
    monkeypatch.setattr(signature.importlib.util, "find_spec", lambda name: None)
    for attempt in (lambda: signature.sign(signed, team[0]), lambda: signature.problem(signed, team[1])):
        with pytest.raises(InputError, match=r"pip install 'mpt_jax\[signing\]'"):
            attempt()


def test_nothing_uses_a_network(signed, team, monkeypatch):
    import socket

    def refused(*arguments, **options):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    signature.sign(signed, team[0])
    assert signature.problem(signed, team[1]) == ""


@pytest.mark.slow
def test_the_command_of_the_library_verifies_it_too(signed, team):
    options = ["--signature", str(signed / "model.sig"), "--public_key", str(team[1])]
    line = [sys.executable, "-m", "model_signing", "verify", "key", str(signed), *options]
    assert subprocess.run(line, capture_output=True, timeout=300).returncode == 0
    (signed / "added").write_text("")
    assert subprocess.run(line, capture_output=True, timeout=300).returncode != 0
