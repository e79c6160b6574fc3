"""Read which module imports which, and draw the packages as layers: `python docs/import_graph.py` writes the figure."""

import ast
import graphlib
import pathlib
from collections.abc import Iterator, Mapping

ROOT = pathlib.Path(__file__).resolve().parents[1]


def modules(package: pathlib.Path = ROOT / "mpt_jax") -> dict[str, str]:
    """Return the source of every module by its dotted name; a package is named by its `__init__`."""
    paths = sorted(package.rglob("*.py"))
    return {".".join(path.relative_to(package.parent).with_suffix("").parts): path.read_text("utf-8") for path in paths}


def imports(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the modules of the package that each module imports, anywhere in its source."""

    def resolved(name: str) -> str | None:
        return next((known for known in (name, f"{name}.__init__") if known in sources), None)

    def found(source: str) -> Iterator[str | None]:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                yield from (resolved(alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from (resolved(f"{node.module}.{alias.name}") or resolved(node.module) for alias in node.names)

    return {name: {target for target in found(source) if target} for name, source in sources.items()}


def entries(graph: Mapping[str, set[str]], package: str) -> dict[str, set[str]]:
    """Return which entries (modules and folders) of a package each of its entries imports.

    The package's own `__init__` is left out: it collects names from below for those above.

    Examples:
      >>> graph = {"p.a": {"p.b.c"}, "p.b.c": {"p.b.d"}, "p.b.d": set(), "p.__init__": {"p.a"}}
      >>> entries(graph, "p")
      {'a': {'b'}, 'b': set()}
    """
    depth, result = package.count(".") + 1, {}
    for name, targets in graph.items():
        if name.startswith(f"{package}.") and (entry := name.split(".")[depth]) != "__init__":
            below = (target.split(".")[depth] for target in targets if target.startswith(f"{package}."))
            result.setdefault(entry, set()).update(other for other in below if other not in (entry, "__init__"))
    return result


def layers(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the entries by layer, lowest first: each imports only entries of lower layers.

    Raises:
      graphlib.CycleError: entries that import each other in a circle.

    Examples:
      >>> layers({"a": {"b"}, "b": set(), "c": {"a", "b"}, "d": set()})
      [['b', 'd'], ['a'], ['c']]
    """
    sorter, result = graphlib.TopologicalSorter(edges), []
    sorter.prepare()
    while sorter.is_active():
        result.append(sorted(sorter.get_ready()))
        sorter.done(*result[-1])
    return result
