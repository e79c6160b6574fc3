"""Imports point one way, the figure of the architecture is current, and every module has its test file."""

import pathlib

import import_graph
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = import_graph.modules()
GRAPH = import_graph.imports(SOURCES)
PACKAGES = sorted({name.rpartition(".")[0] for name in SOURCES})


@pytest.mark.parametrize("package", PACKAGES)
def test_the_entries_of_a_package_do_not_import_each_other_in_a_circle(package):
    edges = import_graph.entries(GRAPH, package)
    assert sorted(entry for layer in import_graph.layers(edges) for entry in layer) == sorted(edges)


def test_a_circle_is_found():
    graph = import_graph.imports({"p.a": "import p.b.c", "p.b.c": "from p import d", "p.d": "from p.a import x"})
    with pytest.raises(import_graph.graphlib.CycleError):
        import_graph.layers(import_graph.entries(graph, "p"))


def test_the_package_has_few_entries():
    assert len(import_graph.entries(GRAPH, "mpt_jax")) <= 26


def test_the_figure_shows_the_imports_of_today():
    assert (ROOT / "docs/architecture.svg").read_text("utf-8") == import_graph.figure()


@pytest.mark.parametrize("module", [name for name in SOURCES if not name.endswith("__init__")])
def test_every_module_has_a_test_file_of_its_name(module):
    *packages, name = module.split(".")[1:]
    assert (ROOT / "tests" / "/".join(packages) / f"test_{name.strip('_')}.py").is_file()
