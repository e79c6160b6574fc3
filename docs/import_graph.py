"""Which module imports which: `python docs/import_graph.py` draws the figure of `docs/architecture.md`."""

import ast
import graphlib
import html
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

    The package's own `__init__` is omitted: it collects names from lower layers for higher ones.

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


def purpose(source: str) -> str:
    """Return the first sentence of a module's docstring, without its full stop.

    Examples:
      >>> purpose("'Losses of a batch. They return one value per example.'")
      'Losses of a batch'
    """
    first_line = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return first_line.partition(". ")[0].rstrip(".").replace("`", "")


def draw(edges: Mapping[str, set[str]], purposes: Mapping[str, str]) -> str:
    """Return the imports as an SVG: a row for each entry, and a square in the column of each entry that it imports.

    Rows are in the order of the layers, highest first, so all squares are on one side of the diagonal.
    """
    names = [name for layer in reversed(layers(edges)) for name in layer]
    cell, left, top = 22, 130, 112
    text_at = left + cell * len(names) + 16
    width = text_at + 7 * max(len(purposes[name]) for name in names)
    height = top + cell * len(names) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for row, name in enumerate(names):
        x, y = left + cell * row, top + cell * row
        shade = "#f3f5f8" if row % 2 == 0 else "#ffffff"
        parts += [
            f'<rect x="0" y="{y}" width="{width}" height="{cell}" fill="{shade}"/>',
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end" font-weight="bold">{name}</text>',
            f'<text x="{text_at}" y="{y + 15}" fill="#444444">{html.escape(purposes[name])}</text>',
            f'<text transform="translate({x + 15} {top - 8}) rotate(-60)">{name}</text>',
        ]
    for row, name in enumerate(names):
        for column, other in enumerate(names):
            square = f'<rect x="{left + cell * column + 3}" y="{top + cell * row + 3}" width="16" height="16" fill='
            if name == other:
                parts.append(f'{square}"#c8ced8"/>')
            elif other in edges[name]:
                parts.append(f'{square}"#2563a8"><title>{name} imports {other}</title></rect>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def figure() -> str:
    """Return the current figure of the package."""
    sources = modules()
    edges = entries(imports(sources), "mpt_jax")
    own = {name: sources.get(f"mpt_jax.{name}") or sources[f"mpt_jax.{name}.__init__"] for name in edges}
    return draw(edges, {name: purpose(source) for name, source in own.items()})


if __name__ == "__main__":
    (ROOT / "docs/architecture.svg").write_text(figure(), "utf-8")
