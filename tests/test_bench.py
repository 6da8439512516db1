"""The measuring tools run and their figures fit together, on tiny models. How fast anything is, is not asserted."""
import json

import numpy as np
import pytest
import torch

import numpyvit
import torch_models
from bench import gains, machine, models, ops, profile, race, run_cost, scaling, threads, train_step, worker
from numpyvit import functional as F
from numpyvit.errors import UserError
from numpyvit.inspection import flops
from numpyvit.models import model_config
from numpyvit.training.optim import hidden_matrices

TORCH_BUILD = torch_models.build
VIT = "vit:img_size=8:patch_size=4:embed_dim=8:depth=1:num_heads=2:num_classes=10"
SWIN = "swin:img_size=8:patch_size=2:embed_dim=8:depths=(2,):num_heads=(2,):window_size=2:num_classes=10"
ONE = ["--rounds", "1", "--steps", "1", "--batch", "4", "--threads", "1"]


def run(tool, tmp_path, *arguments):
    file = tmp_path / "figures" / "bench.json"
    tool.main([*arguments, "--json", str(file)])
    return json.loads(file.read_text())


STEM = f"{VIT}:stem_widths=(5,):stem_strides=(4,)"


@pytest.mark.parametrize("inference, model", [([], VIT), (["--inference"], VIT), (["--whole", "--optimizer", "muon"], STEM)],
                         ids=["training", "inference", "whole"])
def test_train_step(tmp_path, monkeypatch, inference, model):
    monkeypatch.setattr(train_step, "PRODUCT_SIZE", 32)
    figures = run(train_step, tmp_path, "--models", model, "--no-compile", *inference, *ONE)
    (point,) = figures["points"]
    assert list(point["results"]) == ["numpyvit", "torch"] and figures["machine"]["numpyvit"] == numpyvit.__version__
    for result in point["results"].values():
        rate = result["images_per_second"]["median"]
        assert result["peak_mb"] > 10 and result["gflops"] == pytest.approx(rate * point["gflop_per_image"])
        assert result["share_of_peak"] == pytest.approx(result["gflops"] / figures["peak_gflops"])
    ours, theirs = (point["results"][who]["images_per_second"]["median"] for who in ("numpyvit", "torch"))
    assert point["results"]["numpyvit"]["ratio"]["median"] == pytest.approx(ours / theirs)


def test_a_competitor_that_cannot_run_is_missing_with_its_reason():
    there, missing = race.race({"good": dict(who="numpy_product", threads=1, size=8), "bad": dict(who="torch", family="vit")}, 2, 1)
    assert list(there) == ["good"] and len(there["good"].rounds) == 2
    assert "TypeError" in missing["bad"] and "fields" in missing["bad"]


def test_a_busy_machine_is_told():
    assert race.disturbance(0.01) == []
    assert "NOT A MEASUREMENT" in race.disturbance(0.5)[0]


def test_threads_and_scaling(tmp_path):
    assert [p["threads"] for p in run(threads, tmp_path, "--models", VIT, *ONE)["points"]] == [1]
    curves = run(scaling, tmp_path, "--models", SWIN, VIT, "--sizes", "8", "16", *ONE)["curves"]
    assert {name: [p["img_size"] for p in points] for name, points in curves.items()} == {SWIN: [8, 16], VIT: [8, 16]}
    for point in curves[SWIN] + curves[VIT]:
        assert point["ns_per_pixel"]["median"] == pytest.approx(point["seconds"]["median"] * 1e9 / (4 * point["img_size"]**2))


def test_run_cost(tmp_path):
    (point,) = run(run_cost, tmp_path, "--models", STEM, *ONE)["points"]
    bare, whole = (point["images_per_second"][who]["median"] for who in ("bare", "run"))
    assert point["ratio"]["median"] == pytest.approx(bare / whole) and 0 < point["checkpoint_share"] < 1


def test_a_run_that_fails_is_told():
    family, fields = models.configuration(VIT)
    with pytest.raises(UserError, match="batch_size"):
        worker.run_step(family, fields, 0, 1)()


def test_gains(tmp_path):
    points = run(gains, tmp_path, "--models", VIT, "--kernels", "layer_norm", "attention", *ONE)["points"]
    assert [p["without"] for p in points] == ["layer_norm", "attention"]
    assert F.REFERENCE or {"attention", "conv", "optim", "window_attention"} <= set(gains.bound_files())


def test_without_a_kernel_its_definitions_run(monkeypatch):
    for name in ("layer_norm_forward", "layer_norm_backward"):
        monkeypatch.setattr(F, name, getattr(F, name))                       # puts the kernels back afterwards
    family, fields = models.configuration(VIT)
    worker.numpyvit_step(family, fields, 4, 1, without="layer_norm")
    assert F.layer_norm_forward.__module__ == F.layer_norm_backward.__module__ == "numpyvit.ops.layer_norm"


def test_ops(tmp_path):
    points = run(ops, tmp_path, "--ops", "layer_norm", "window_attention", "--rounds", "1", "--milliseconds", "0.1")["points"]
    assert [(p["op"], p["direction"]) for p in points] == [(op, way) for op in ("layer_norm", "window_attention")
                                                           for way in ("forward", "backward")]


@pytest.mark.parametrize("op", sorted(ops.FASTER.keys() - {"dropout", "drop_path"}))
def test_the_faster_torch_functions_compute_the_same(op):
    (case,) = [case for case in ops.cases.CASES if case.name == op]
    arrays, others = ops.cases.bench_inputs(case, "float64")
    tensors = {name: a if a is None else ops.torch.tensor(a) for name, a in arrays.items()}
    ops.torch.testing.assert_close(ops.FASTER[op](**tensors, **others), case.torch(ops.torch, **tensors, **others))


def test_profile(tmp_path):
    before = dict(vars(F))
    figures = run(profile, tmp_path, SWIN, "--layers", "--shards", "4", *ONE)
    assert dict(vars(F)) == before                                           # unwrapped again
    rows = figures["rows"]
    _, fields = models.configuration(SWIN)
    assert rows["window_attention_forward"]["calls"] == 2 * 4                # blocks × shards
    assert {"sum of shards", "adamw_step", "lane, besides layers and ops", "Linear.backward, besides its ops"} <= rows.keys()
    products = sum(rows[f"{op}_{way}"]["flops"] for op in ("linear", "patch_embed", "window_attention") for way in ("forward", "backward"))
    assert products == 4 * 3 * models.forward_flops("swin", fields)          # counted on ours, call by call, and on torch's model


def test_profile_is_exclusive():
    p = profile.Profile()
    inner = p.timed("inner", lambda: sum(range(200_000)))
    p.timed("outer", lambda: [inner() for _ in range(20)])()
    assert p.rows["inner"][1] == 20 and p.rows["outer"][0] < p.rows["inner"][0] / 4


@pytest.mark.parametrize("name", [*models.MODELS, "vit_nano_patch4_32", "vit_nano_conv_32", "vit_mini_convpool_32"])
def test_flops_of_ours_and_of_torchs_model(name):
    family, fields = models.configuration(name)
    ours = flops.forward_flops(family, model_config(family, **fields)[1])
    assert ours in (0, models.forward_flops(family, fields))                 # 0: no formula there


def test_batches_are_what_the_models_take():
    for name in models.DEFAULT:
        family, fields = models.configuration(name, img_size=(32, 32))
        images, labels = worker.batch_of(np, fields, 2)
        assert numpyvit.create_model(family, **fields).forward(images)[0].shape == (2, fields["num_classes"]) and len(labels) == 2


@pytest.mark.parametrize("name", [VIT, SWIN, "cvt_128", "vit_mini_convpool_32", "swin_mini_convpool_32", "cvt_mini_convpool_32"])
def test_both_muons_take_the_same_parameters(name):
    family, fields = models.configuration(name)
    twin = torch_models.build(family, **fields)
    assert worker.hidden_parameters(twin).keys() == hidden_matrices(numpyvit.create_model(family, **fields))


def test_torchs_muon_changes_the_kernels_of_convolutions(monkeypatch):
    built = []
    monkeypatch.setattr(torch_models, "build", lambda *args, **fields: built.append(TORCH_BUILD(*args, **fields)) or built[0])
    family, fields = models.configuration("vit_nano_conv_32")
    step = worker.torch_step(family, fields, 2, 1, optimizer="muon")
    before = {name: p.detach().clone() for name, p in built[0].named_parameters()}
    step()
    same = [name for name, p in built[0].named_parameters() if torch.equal(p, before[name])]
    kernels = [name for name, p in built[0].named_parameters() if p.ndim == 4]
    assert same == [] and len(kernels) == 6
    moved = dict(built[0].named_parameters())[kernels[1]].detach() - before[kernels[1]]
    values = torch.linalg.svdvals(moved.flatten(1))
    assert values[-1] > values[0] / 4                                        # all directions alike: a step of Muon's


def test_the_machine_is_named(tmp_path):
    m = machine.machine()
    assert m["cores"] >= 1 and m["cpu"] and m["instruction_set"] and m["numpyvit"] == numpyvit.__version__
    line = machine.in_one_line()
    assert m["cpu"] in line and m["instruction_set"] in line and all(size in line for size in m["caches"].values())
    (tmp_path / "cpuinfo").write_text("model name\t: Some Xeon\nflags\t\t: sse2 avx avx2 avx512f amx_tile\n")
    assert machine.cpuinfo(tmp_path / "cpuinfo") == ("Some Xeon", {"sse2", "avx", "avx2", "avx512f", "amx_tile"})
    for i, (level, kind, size) in enumerate([("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2048K")]):
        (tmp_path / f"index{i}").mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (tmp_path / f"index{i}" / name).write_text(text + "\n")
    assert machine.caches(tmp_path) == {"L1d": "48K", "L1i": "32K", "L2": "2048K"}
    assert machine.caches(tmp_path / "nothing") == {}
