"""Results as tables: no number is cut off."""

import io

from rich.console import Console

from mpt_jax.benchmark import rendering


def test_large_numbers_are_not_truncated_in_80_columns():
    row = {"dtype": "bfloat16", "students": 32, "median_ms": 98.76, "examples_per_second": 1234567.0}
    row |= {"share_of_one": {"ratio": 0.05}, "utilisation": 1.234, "utilisation_on_data": 0.654}
    row |= {"compile_seconds": 123.4, "times_peer": 123.45}
    row |= {"program_bytes": 123456 * 2**20, "peak_bytes": 123456 * 2**20}
    console = Console(file=io.StringIO(), width=80)
    for columns in ((*rendering.DTYPES, rendering.TIMES_PEER), (*rendering.STUDENTS, rendering.TIMES_PEER)):
        console.print(rendering.grid(columns, [row]))
    seen = console.file.getvalue()
    assert "\u2026" not in seen
    for text in ("bfloat16", "98.76", "1,234,567", "123.4", "123,456", "123.45", "65.4"):
        assert text in seen
