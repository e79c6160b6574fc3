"""Collectives are counted as often as a step executes them."""

from mpt_jax.benchmark import collectives

HLO = """
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}
%micro (p: (f32[8])) -> (f32[8]) {
  %g = (f32[8]{0}, /*index=1*/bf16[2,3]{1,0}) all-reduce(%p, %q), replica_groups={}, to_apply=%add
}
%step (p: (f32[8])) -> (f32[8]) {
  %start = (f32[2]{0}, f32[8]{0}) all-gather-start(%p), dimensions={0}
  %done = f32[8]{0} all-gather-done(%start)
  %m = (f32[8]) while(%done), condition=%c, body=%micro, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %piece = f32[4]{0} reduce-scatter(%m), dimensions={0}, to_apply=%add
}
%drawn (p: (f32[8])) -> (f32[8]) {
  ROOT %x = (f32[8]) add(%p)
}
ENTRY %main.1 (p: f32[8]) -> f32[8] {
  %once = f32[100]{0} all-reduce(%p), to_apply=%add
  %draws = (f32[8]) while(%once), condition=%c, body=%drawn
  ROOT %steps = (f32[8]) while(%draws), condition=%c, body=%step
}"""


def test_collectives_count_as_often_as_a_step_executes_them():
    assert {each.kind: (each.count, each.bytes) for each in collectives.of_step(HLO)} == {
        "all-reduce": (3, 3 * (8 * 4 + 6 * 2)),
        "all-gather": (1, 8 * 4),
        "reduce-scatter": (1, 4 * 4),
    }
