"""The transfers between devices in a compiled program, parsed from its HLO text."""

import collections
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5} | {f"{kind}{bits}": bits // 8 for kind in "suf" for bits in (8, 16, 32, 64)}
_BYTES |= {"bf16": 2, "c64": 8, "c128": 16, "token": 0, "opaque": 0}

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$")
_OPERATION = re.compile(rf" = (.+?) ({'|'.join(KINDS)})(?:-start)?\((.*)")
_SHAPE = re.compile(r"([a-z][a-z0-9]*)\[([0-9,]*)\]")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations|true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')


@dataclass(frozen=True)
class Collective:
    """One kind of transfer in a step: its count, and the total bytes of its results on one device."""

    kind: str
    count: int
    bytes: int


def of_step(hlo: str) -> list[Collective]:
    """Count the collectives of one step in a compiled program whose loop over steps has traced bounds.

    The body of a loop with a known trip count, such as the one over micro-batches, counts that many times; the loop
    over steps has no known trip count and counts once. Collectives outside of it (once a call) are not counted. The
    size of an ``all-gather`` is that of the gathered array, the size of a ``reduce-scatter`` that of a piece.

    Examples:
      >>> of_step('''
      ... %body (p: (f32[2])) -> (f32[2]) {
      ...   %sum = f32[2,3]{1,0} all-reduce(%p), to_apply=%add
      ... }
      ... ENTRY %main (p: f32[2]) -> f32[2] {
      ...   %loop = (f32[2]) while(%p), condition=%c, body=%body
      ... }''')
      [Collective(kind='all-reduce', count=1, bytes=24)]
    """
    entry, computations = _computations(hlo)
    found: collections.Counter[str] = collections.Counter()
    sizes: dict[str, float] = collections.defaultdict(float)

    def visit(name: str, times: int, in_step: bool) -> None:
        for line in computations.get(name, ()):
            operation = _OPERATION.search(line)
            if operation and in_step:
                result, kind, _ = operation.groups()
                started = f" {kind}-start(" in line and result.startswith("(") and kind != "all-reduce"
                found[kind] += times
                sizes[kind] += times * _size(result, second_half=started)
            trips = _TRIPS.search(line)
            loop = " while(" in line
            for called in _called(line):
                visit(called, times * (int(trips.group(1)) if trips and loop else 1), in_step or (loop and not trips))

    visit(entry, 1, False)
    return [Collective(kind, found[kind], round(sizes[kind])) for kind in KINDS if found[kind]]


def _computations(hlo: str) -> tuple[str, dict[str, list[str]]]:
    entry, name = "", ""
    computations: dict[str, list[str]] = {}
    for line in hlo.splitlines():
        header = _COMPUTATION.match(line.strip()) if not line.startswith("  ") else None
        if header:
            name = header.group(2)
            computations[name] = []
            entry = name if header.group(1) else entry
        elif name:
            computations[name].append(line)
    return entry, computations


def _called(line: str) -> Iterator[str]:
    for names in _CALLED.findall(line):
        for name in names.strip("{}").split(","):
            yield name.strip().removeprefix("%")


def _size(result: str, second_half: bool) -> float:
    """Return the bytes of a result's arrays; of their second half where the operands are listed first."""
    shapes = _SHAPE.findall(re.sub(r"/\*.*?\*/", "", result))
    shapes = shapes[len(shapes) // 2 :] if second_half else shapes
    return sum(_BYTES[kind] * math.prod(int(n) for n in dims.split(",") if n) for kind, dims in shapes)
