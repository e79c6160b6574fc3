"""The benchmark: what it counts, that it times the real train steps, what it prints, and what it refuses."""

import io
import json
import math
import pathlib
import statistics
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich
from rich.console import Console

from mpt_jax import models, training
from mpt_jax.benchmark import collectives, flops, memory, program, reading, scaling, show
from mpt_jax.benchmark.__main__ import main
from mpt_jax.data.photos import photograph
from mpt_jax.models.convolution import native_conv2d
from mpt_jax.objectives import METHODS
from mpt_jax.training import sharding

ROOT = pathlib.Path(__file__).resolve().parents[1]
SMALL = ("--model", "convnet", "--batch", "16", "--steps", "1", "--rounds", "2")
# (side of the map, kernel, stride, channels in, channels out), and how often
CONVNET = {(8, 3, 1, 1, 16): 1, (8, 3, 2, 16, 32): 1, (4, 3, 1, 32, 32): 1}
RESNET18 = {
    **{(32, 7, 2, 3, 64): 1, (8, 3, 1, 64, 64): 4},
    **{(8, 3, 2, 64, 128): 1, (4, 3, 1, 128, 128): 3, (8, 1, 2, 64, 128): 1},
    **{(4, 3, 2, 128, 256): 1, (2, 3, 1, 256, 256): 3, (4, 1, 2, 128, 256): 1},
    **{(2, 3, 2, 256, 512): 1, (1, 3, 1, 512, 512): 3, (2, 1, 2, 256, 512): 1},
}


@pytest.fixture
def peer(tmp_path):
    """A command that claims 8 ms per step, and keeps its arguments in a file beside it."""
    script = tmp_path / "peer.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "with pathlib.Path(__file__).with_suffix('.log').open('a') as log: print(*sys.argv[1:], file=log)\n"
        "print('warming up')\n"
        "print(json.dumps({'median_ms': 8.0, 'batch': 16}))\n"
    )
    return script


def measure(capsys, *arguments):
    """The one JSON object that the command prints."""
    assert main([*arguments, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


@pytest.mark.parametrize(
    ("module", "shape", "convolutions", "head"),
    [
        (models.build("convnet", 10), (8, 8, 1), CONVNET, 512 * 10),
        (models.build("resnet18", 100), (32, 32, 3), RESNET18, 512 * 100),
    ],
)
def test_work_is_that_of_every_layer_by_hand(module, shape, convolutions, head):
    dense = on_data = head
    for (side, taps, stride, inputs, outputs), times in convolutions.items():
        # Over ones, a convolution counts the taps that meet data.
        ones = native_conv2d(
            jnp.ones((1, side, side, 1)), jnp.ones((taps, taps, 1, 1)), stride=stride, padding=taps // 2
        )
        on_data += times * inputs * outputs * int(ones.sum())
        dense += times * inputs * outputs * taps**2 * ones.size
    assert flops.forward(module, shape) == flops.Work(2 * dense, 2 * on_data)


def test_a_step_is_three_forward_passes_a_student_and_one_a_teacher():
    student, old = (models.build("convnet", classes) for classes in (10, 5))
    one, teacher = (flops.forward(module, (8, 8, 1)) for module in (student, old))
    counted = flops.step(student, [old], (8, 8, 1), batch=7, students=4)
    assert counted == flops.Work(7 * (12 * one.dense + teacher.dense), 7 * (12 * one.on_data + teacher.on_data))


@pytest.mark.slow
def test_the_program_does_the_steps_of_training_one_after_the_other(one_device):
    setup, mesh = program.Setup(model="convnet", batch=16, steps=2), sharding.make_mesh()
    rows = [METHODS["mpt_kl"], METHODS["mpt_kl"].replace(bias=1.0)]
    images, labels = program.examples(setup.job, mesh)
    timed = program.Program(setup, rows, images, labels, mesh)  # which does one step
    assert timed.run(4) > 0 and timed.milliseconds() > 0 and timed.call_milliseconds() > 0

    recipe, inputs = setup.recipe(), program.make_inputs(setup, rows, images, labels)
    state, inputs = jax.device_put(
        (program.make_state(recipe, inputs, 2), inputs),
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
    )
    done = 1 + 4 + 2 * program.CALLS
    state, values = training.train_steps(recipe, mesh, state, inputs, jnp.int32(0), jnp.int32(done))
    assert np.isfinite(values["loss"]).all()
    for expected, found in zip(jax.tree.leaves(state), jax.tree.leaves(timed._state), strict=True):
        np.testing.assert_array_equal(expected, found)
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[0, i], state.params) for i in (0, 1))
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))


def test_the_random_state_is_shaped_like_that_of_training():
    setup, mesh = program.Setup(model="convnet", batch=16), sharding.make_mesh()
    images, labels = program.examples(setup.job, mesh)
    recipe, inputs = setup.recipe(), program.make_inputs(setup, [METHODS["mpt_kl"]] * 3, images, labels)
    made = program.make_state(recipe, inputs, 3)
    real = jax.eval_shape(lambda keys: training.init_state(recipe, keys, 3, (8, 8, 1), len(labels)), inputs.keys)
    assert jax.tree.structure(made) == jax.tree.structure(real)
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (made, real)]
    assert shapes[0] == shapes[1]
    assert set(inputs.teachers) == {"old", "new"} and inputs.teachers["old"].module.num_classes == 5
    assert set(program.make_inputs(setup, [METHODS["pct_kl"]], images, labels).teachers) == {"old"}
    assert not program.make_inputs(setup, [METHODS["no_treatment"]], images, labels).teachers


def test_how_many_run_side_by_side_is_the_librarys_choice_unless_given():
    chosen = training.members_at_once()
    assert program.Setup(model="convnet").recipe().members_at_once == chosen
    assert program.Setup(model="convnet", members_at_once=chosen + 1).recipe().members_at_once == chosen + 1


@pytest.mark.slow
def test_step_against_a_peer_on_eight_devices(capsys, peer, monkeypatch):
    monkeypatch.setitem(flops.PEAK_SIZE, "cpu", 64)
    result = measure(capsys, "step", *SMALL, "--against", f"{sys.executable} {peer}")
    assert result["benchmark"] == "step" and result["versions"]["jax"] == jax.__version__
    assert result["device"]["count"] == jax.device_count() and result["members_at_once"] == 1
    assert len(result["ms"]) == 2 and result["median_ms"] == pytest.approx(statistics.median(result["ms"]))
    assert result["examples_per_second"] == pytest.approx(16 / (1e-3 * result["median_ms"]))
    work = flops.forward(models.build("convnet", 10), (8, 8, 1)).dense * 4
    work = 16 * (work + flops.forward(models.build("convnet", 5), (8, 8, 1)).dense)
    assert result["gflop"] == pytest.approx(1e-9 * work)
    peak = result["peak"]["tflops"]
    assert result["utilisation"] == pytest.approx(work / (1e-3 * result["median_ms"]) / (1e12 * peak))
    assert result["utilisation_on_data"] < result["utilisation"]
    assert peak > 0 and "64 x 64" in result["peak"]["source"]
    against = result["against"]
    assert against["ms"] == [8.0, 8.0] and against["ratio"] == pytest.approx(result["median_ms"] / 8)
    assert against["ratios"] == pytest.approx([ms / 8 for ms in result["ms"]])
    assert result["compile_seconds"] > 0 and result["program_bytes"] > 0
    assert result["peak_bytes_of"] == "process" and result["peak_bytes"] > 50e6


@pytest.mark.slow
def test_population_is_compared_with_one_student(one_device, capsys):
    result = measure(capsys, "population", *SMALL, "--sizes", "2", "--peak-tflops", "0.001")
    one, two = result["rows"]
    assert (one["students"], two["students"], two["members_at_once"]) == (1, 2, 2)
    assert one["share_of_one"] == {"ratio": 1.0, "ratios": [1.0, 1.0]}
    expected = [b / 2 / a for a, b in zip(one["ms"], two["ms"], strict=True)]
    assert two["share_of_one"]["ratios"] == pytest.approx(expected)
    assert two["share_of_one"]["ratio"] == pytest.approx(two["median_ms"] / 2 / one["median_ms"])
    assert result["peak"] == {"tflops": 0.001, "source": "as given"}
    assert two["gflop"] < 2 * one["gflop"] and two["program_bytes"] > one["program_bytes"]


@pytest.mark.slow
def test_table_against_separate_runs(one_device, capsys):
    methods = ("mpt_kl_no_bias", "mpt_kl")
    result = measure(capsys, "table", *SMALL, "--methods", ",".join(methods))
    rows = result["rows"]
    assert [row["method"] for row in rows] == list(methods)
    assert [row["teachers"] for row in rows] == [["old", "new"]] * 2
    separate = [sum(row["ms"][i] for row in rows) for i in range(2)]
    assert result["ratios"] == pytest.approx([ms / total for ms, total in zip(result["ms"], separate, strict=True)])
    assert result["separate_ms"] == pytest.approx(statistics.median(separate))
    # They are one program here, but each would be compiled in a run of its own.
    assert rows[0]["compile_seconds"] == rows[1]["compile_seconds"] > 0
    assert result["separate_compile_seconds"] == pytest.approx(sum(row["compile_seconds"] for row in rows))


def test_the_accelerators_script_at_toy_size(one_device, capsys, peer, tmp_path, monkeypatch):
    monkeypatch.setitem(flops.PEAK_SIZE, "cpu", 64)
    target = tmp_path / "result.json"
    plain = ("--method", "no_treatment")  # without teachers there is less to compile
    assert main(["device", "--toy", *plain, "--peer", f"{sys.executable} {peer}", "--json", str(target)]) == 0
    result = json.loads(target.read_text())
    assert peer.with_suffix(".log").read_text().split() == ["--dtype", "float32", "--dtype", "bfloat16"]
    assert list(result["dtypes"]) == ["float32", "bfloat16"]
    out = capsys.readouterr().out
    for dtype, found in result["dtypes"].items():
        assert [row["students"] for row in found["rows"]] == [1, 2]
        for row in found["rows"]:
            assert row["dtype"] == dtype and row["utilisation"] > 0
            assert row["times_peer"] == pytest.approx(row["examples_per_second"] / (16 / 8e-3))
        assert found["epoch"]["steps"] == math.ceil(found["epoch"]["images"] / 16) and found["epoch"]["seconds"] > 0
        assert found["peak"]["tflops"] > 0 and "64 x 64" in found["peak"]["source"]
        assert dtype in out


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


def test_collectives_of_a_step_are_those_of_its_loop_as_often_as_they_happen():
    assert {each.kind: each[1:] for each in collectives.of_step(HLO)} == {
        "all-reduce": (3, 3 * (8 * 4 + 6 * 2)),
        "all-gather": (1, 8 * 4),
        "reduce-scatter": (1, 4 * 4),
    }


@pytest.mark.parametrize(("method", "devices"), [("no_treatment", 2), ("mpt_kl", 8)])
def test_a_step_sends_the_gradient_and_batch_norm_and_nothing_for_the_teachers(method, devices):
    setup = program.Setup(model="convnet", batch=16)
    row = scaling.described(setup, [METHODS[method]], sharding.make_mesh(jax.devices()[:devices]))
    params, statistics = jax.eval_shape(lambda: models.init(setup.network(), jax.random.key(0), (8, 8, 1)))
    gradient, statistics = (4 * sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, statistics))
    assert (row["gradient_bytes"], row["statistics_bytes"]) == (gradient, statistics)
    (all_reduce,) = row["collectives"]
    # Of each BatchNorm two sums forward, and one of the two backward that are no gradients; also loss and accuracy.
    assert all_reduce["bytes"] == gradient + 1.5 * statistics + 2 * 4
    assert row["images_per_device"] == 16 / devices
    teachers = [models.build("convnet", classes) for classes in (5, 10) if method == "mpt_kl"]
    work = flops.step(setup.network(), teachers, (8, 8, 1), batch=16, students=1)
    assert row["gflop_per_device"] == pytest.approx(1e-9 * work.dense / devices)


def test_predicted_efficiency_is_that_of_the_published_figures():
    sent = {"kind": "all-reduce", "count": 1, "bytes": 450e6}
    row = {"devices": 8, "gflop_per_device": 989.4, "collectives": [sent]}
    found = scaling.predicted(row, "bfloat16")
    assert found["H100"] == pytest.approx({"ms": 2.75, "communication_ms": 1.75, "efficiency": 1 / 2.75})
    assert found["TPU v5e"]["communication_ms"] == pytest.approx(1e3 * 1.75 * 450e6 / 200e9)
    assert set(scaling.predicted({**row, "devices": 64}, "bfloat16")) == {"TPU v5e"}  # a node has 8
    assert scaling.predicted({**row, "devices": 1, "collectives": []}, "float32")["H100"]["efficiency"] == 1


def test_no_number_of_a_large_machine_is_cut_off_in_80_columns():
    row = {"dtype": "bfloat16", "students": 32, "median_ms": 98.76, "examples_per_second": 1234567.0}
    row |= {"share_of_one": {"ratio": 0.05}, "utilisation": 1.234, "utilisation_on_data": 0.654}
    row |= {"compile_seconds": 123.4, "times_peer": 123.45}
    row |= {"program_bytes": 123456 * 2**20, "peak_bytes": 123456 * 2**20}
    console = Console(file=io.StringIO(), width=80)
    for columns in ((*show.DTYPES, show.TIMES_PEER), (*show.STUDENTS, show.TIMES_PEER)):
        console.print(show.grid(columns, [row]))
    seen = console.file.getvalue()
    assert "\u2026" not in seen
    for text in ("bfloat16", "98.76", "1,234,567", "123.4", "123,456", "123.45", "65.4"):
        assert text in seen


def test_scaling_compiles_for_devices_that_are_not_here(capsys):
    assert main(["scaling", "--model", "convnet", "--method", "no_treatment", "--devices", "16", "--weak"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "images" in out and "TPU" in out and "no_treatment" in out and " 16 48 " in out


def test_memory_is_predicted_without_a_run_and_advice_makes_it_fit(capsys):
    arguments = ("--memory", "--model", "convnet", "--batch", "64", "--students", "2", "--method", "no_treatment")
    result = measure(capsys, "step", *arguments, "--device-memory", "0.0001")
    parts = result["bytes"]
    assert parts["total"] == sum(size for use, size in parts.items() if use != "total")
    assert parts["images"] == 320 * (64 + 4) and parts["teachers"] == 0
    network = models.build("convnet", 10)
    params, statistics = jax.eval_shape(lambda: models.init(network, jax.random.key(0), (8, 8, 1)))
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, statistics)]
    assert parts["state"] == 2 * 4 * (2 * sizes[0] + sizes[1] + 1)  # and the count of steps
    assert result["limit_bytes"] == pytest.approx(0.0001 * 2**30) and result["form"] == "accelerator"
    rich.print(show.render(result))
    out = capsys.readouterr().out
    assert "does not fit" in out and "optimizer.accumulate=2" in out and "mesh.fsdp=0" in out
    rich.print(show.render({**result, "limit_bytes": None, "advice": [], "form": "own"}))
    assert "no limit known" in capsys.readouterr().out


def test_advice_is_given_where_a_step_does_not_fit():
    parts = {"state": 2, "images": 1, "teachers": 1, "temporaries": 12}
    parts = {use: size * memory.GiB for use, size in parts.items()}
    parts["total"] = sum(parts.values())
    tell = lambda limit, setup=program.Setup(model="vit_tiny"), **sizes: memory.advice(  # noqa: E731, B008
        parts, limit * memory.GiB, setup, **{"students": 1, "devices": 1, **sizes}
    )
    assert tell(16) == []
    accumulate, remat = tell(9)
    assert accumulate == "optimizer.accumulate=2: 11.0 GiB; 4: 8.5 GiB"  # 10 of 12 GiB are activations
    assert remat.startswith("training.remat=true: ") and 6 < float(remat.split()[1]) < 16
    assert "mesh.fsdp=0: 14.5 GiB" in tell(9, devices=4)
    assert "training.members_at_once=1: 10.0 GiB" in tell(9, students=2)
    assert "a population of 1: 9.0 GiB" in tell(9, students=2)
    assert tell(9, program.Setup(model="convnet"))[1:] == []  # which has no blocks


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required: step|population|table|device|scaling"),
        (["step", "--accumulate", "3"], "multiple of the 8 devices times optimizer.accumulate=3"),
        (["step", "--fsdp", "3"], "mesh.fsdp=3"),
        (["input", "--images", "8", "--batch", "6"], "--batch=6; expected a multiple of the 8 devices"),
        (["input", "--images", "8", "--batch", "8", "--model", "nope"], "nope"),
        (["step", "--memory", "--device-memory", "0"], "above 0"),
        (["scaling", "--devices", "3"], "--devices 3: --batch 128"),
        (["scaling", "--method", "mpt"], "mpt_kl"),
        (["scaling", "--devices", "0"], "integer from 1"),
        (["steps"], "population"),
        (["step", "--sizes", "2"], "--sizes"),
        (["step", "--rounds", "0"], "integer from 1"),
        (["step", "--peak-tflops", "nan"], "above 0"),
        (["step", "--dtype", "float8"], "bfloat16"),
        (["step", "--model", "resnet19"], "resnet18"),
        (["step", "--model", "convnet", "--stem", "cifar"], "stem"),
        (["step", "--method", "mpt"], "mpt_kl"),
        (["step", "--batch", "12"], "multiple of the 8 devices"),
        (["step", "--against", "no-such-program --teachers 0"], "no such program"),
        (["step", "--against", "'"], "No closing quotation"),
        (["step", "--json", "no/such/folder/file"], "no/such/folder/file"),
        (["population", "--sizes", "1,x"], "integer from 1"),
        (["population", "--sizes", ""], "at least one"),
        (["table", "--methods", "mpt_kl,mpt"], "mpt_lm"),
        (["table", "--methods", ","], "at least one"),
        (["device", "--data-dir", "no/such/folder"], "no/such/folder"),
        (["device", "--data-dir", "no/such/folder", "--toy"], "CIFAR-100"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, arguments, says):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: ") and says in captured.err


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise SystemExit('no torch here')", "no torch here"),
        ("print('done')", "median_ms"),
        ("", "median_ms"),
        ("print('[1]')", "median_ms"),
        ("print('{\"median_ms\": 0}')", "above 0"),
        ("print('{\"median_ms\": NaN}')", "above 0"),
        ('print(\'{"median_ms": 1, "batch": 32}\')', "--batch 32"),
    ],
)
def test_a_peer_that_does_not_measure_is_refused(tmp_path, code, says):
    script = tmp_path / "peer.py"
    script.write_text(code)
    with pytest.raises(program.InputError, match=says):
        program.peer_milliseconds(f"{sys.executable} {script}", 16)


def test_help_needs_no_jax():
    code = (
        "import sys, mpt_jax.benchmark.__main__ as b\n"
        "try: b.main(['step', '--help'])\nexcept SystemExit: pass\nprint('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "--against" in done.stdout and done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("given", [True, pytest.param(False, marks=pytest.mark.slow)])  # which compiles a train step
def test_reading_counts_images_and_leaves_out_a_peer_that_is_not_there(
    capsys, monkeypatch, tmp_path, one_device, given
):
    monkeypatch.setattr(reading.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(reading, "SIZES", ((30, 40),))
    options = ["--images", "5"]
    if given:
        (tmp_path / "deeper").mkdir()
        (tmp_path / "deeper/a.jpg").write_bytes(photograph("dots", 50, 40, np.random.default_rng(0)))
        options = ["--data", str(tmp_path), "--train-steps", "0"]
    line = ("input", "--model", "convnet", "--batch", "4", "--batches", "2", "--rounds", "2", "--image-size", "8")
    result = measure(capsys, *line, *options)
    (row,) = result["rows"]
    assert result["files"] == (1 if given else 5) and len(row["ms"]) == 2
    assert row["images_per_second"] == pytest.approx(4e3 / statistics.median(row["ms"]))
    assert "ratio" not in result
    if not given:
        assert 0 <= result["training"]["waiting_share"] < 1 and result["training"]["steps"] == 8
    console = io.StringIO()
    Console(file=console, width=100).print(reading.render(result))
    assert "images/s" in console.getvalue() and ("waiting" in console.getvalue()) == (not given)


def test_reading_against_the_peer_in_alternating_rounds(capsys, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(reading, "SIZES", ((30, 40),))
    result = measure(
        *(capsys, "input", "--batch", "4", "--batches", "1", "--rounds", "1", "--image-size", "8"),
        *("--images", "4", "--train-steps", "0"),
    )
    assert [row["name"] for row in result["rows"]] == ["ours", "peer"] and result["ratio"] > 0
    assert result["ratio"] == pytest.approx(result["rows"][1]["ms"][0] / result["rows"][0]["ms"][0])


def test_reading_needs_files(tmp_path, capsys):
    assert main(["input", "--data", str(tmp_path)]) == 2
    assert "holds no files *.jpg" in capsys.readouterr().err
    assert main(["input", "--data", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err
