"""The table of layers: parameters exact, multiply-adds as torch counts them, without a weight allocated."""
import dataclasses
import io
import tracemalloc

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import numpyvit
import torch_models
from numpyvit.models import FAMILIES, model_config
from numpyvit.cli import main as cli
from numpyvit.inspection.summary import COUNTED, amount, by_block, run, summary

SMALL = [("vit_tiny_patch4_32", {}), ("vit_nano_patch4_32", {"pos_embed": "none"}), ("vit_nano_conv_32", {}),
         ("vit_nano_patch4_rope_32", {}),
         ("vit_mini_convpool_32", {}), ("swin_nano_patch2_window4_32", {}), ("swin_mini_convpool_32", {}),
         ("cvt_mini_convpool_32", {}),
         ("swin_mini_patch2_window4_32", {"num_classes": 7}), ("cvt_nano_32", {}), ("cvt_tiny_32", {"cls_token": True}),
         ("cvt_nano_32", {"qkv_method": "avg"}), ("cvt_nano_32", {"qkv_method": "linear", "cls_token": True})]
BIG = [("vit_base_patch16_224", {}), ("swin_tiny_patch4_window7_224", {}), ("cvt_13", {})]


@pytest.mark.parametrize("name", [*numpyvit.list_models(), *FAMILIES])
def test_parameters_of_every_preset(name):
    layers = summary(name)
    assert sum(row.parameters for row in layers) == numpyvit.count_parameters(name)
    assert sum(row.parameters for row in by_block(layers)) == numpyvit.count_parameters(name)


@pytest.mark.parametrize("name, overrides", SMALL + BIG, ids=str)
def test_multiply_adds_are_those_torch_counts(name, overrides):
    family, config = model_config(name, **overrides)
    fields = {**dataclasses.asdict(config), "drop_rate": 0, "attn_drop_rate": 0, "drop_path_rate": 0}
    with torch.device("meta"):
        oracle = torch_models.build(family, **fields).eval()
        images = torch.empty(1, config.in_chans, *torch_models.pair(config.img_size))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        oracle(images)
    counted = counter.get_total_flops() / 2
    assert sum(row.macs for row in summary(name, **overrides)) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("name, overrides", SMALL, ids=str)
def test_shapes_are_those_of_a_forward_pass(name, overrides):
    model, seen = numpyvit.create_model(name, **overrides), {}

    def watch(path, forward):
        def watched(*args):
            y, cache = forward(*args)
            seen[path] = y.shape
            return y, cache
        return watched

    for path, module in model.modules():
        if path and hasattr(module, "forward"):
            module.forward = watch(path.removesuffix(".fc") if path == "head.fc" else path, module.forward)
    model.forward(np.zeros((2, 3, 32, 32), np.float32), train=True, rng=0)
    layers = summary(model)
    compared = {row.name for row in layers if row.name in seen}
    assert len(compared) > len(layers) / 2 and "head" in compared
    for row in layers:
        if row.name in compared:
            assert seen[row.name][0] == 2 and np.prod(seen[row.name][1:]) == np.prod(row.shape), row
    halves = {row.activation_bytes // 2 for row in summary(name, dtype="float64", **overrides)}
    assert halves == {row.activation_bytes for row in layers}


def test_attention_row_by_hand():
    rows = {row.name: row for row in summary("vit", img_size=8, patch_size=4, embed_dim=12, depth=1, num_heads=3, num_classes=2)}
    attn = rows["blocks.0.attn"]
    assert attn.shape == (5, 12) and attn.macs == 2 * 5 * 5 * 12 and attn.activation_bytes == 4 * (3 * 25 + 5 * 12)
    assert rows["head"].macs == 24 and rows["head"].parameters == 26 and rows["tokens"].parameters == 12 + 5 * 12
    assert "blocks.0.attn.rotary" not in rows
    rows = {row.name: row for row in summary("vit", img_size=8, patch_size=4, embed_dim=12, depth=1, num_heads=3, pos_embed="rotary")}
    turned = rows["blocks.0.attn.rotary"]
    assert (turned.shape, turned.parameters, turned.macs, turned.activation_bytes) == ((5, 36), 0, 0, 4 * 5 * 36)
    assert rows["tokens"].kind == "class" and rows["tokens"].parameters == 12
    rows = {row.name: row for row in summary("swin", img_size=20, patch_size=2, embed_dim=12, depths=(1,), num_heads=(3,),
                                             window_size=4, num_classes=2)}
    assert rows["layers.0.blocks.0.attn"].macs == 2 * 9 * 16 * 16 * 12       # 10×10 padded to 12×12: nine windows
    assert rows["layers.0.blocks.0.attn"].parameters == 49 * 3


def test_nothing_is_allocated():
    tracemalloc.start()
    summary("vit_huge_patch14_224")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**21


def test_table():
    out = io.StringIO()
    run("cvt_nano_32", {"num_classes": 3}, Console(file=out))
    text = out.getvalue()
    assert "stage1.blocks.3" in text and f"{numpyvit.count_parameters('cvt_nano_32', num_classes=3):,}" in text
    run("cvt_nano_32", console=Console(file=out), every_layer=True)
    assert "stage0.blocks.0.attn.conv_proj_k.bn" in out.getvalue()


def test_20_models_and_summary_print_the_same_counts_and_say_what_they_count(capsys):
    """Every preset: the row of models ends with the total of summary, and both say that these are multiply-adds."""
    assert cli.main(["models"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert all("multiply-adds" in text and "each two FLOPs" in text for text in (heading, COUNTED))
    rows = dict(line.split(maxsplit=1) for line in lines)
    assert rows.keys() == set(numpyvit.list_models())
    for name in rows:
        out = io.StringIO()
        run(name, console=Console(file=out, width=150))
        (total,) = [line for line in out.getvalue().splitlines() if line.split()[:1] == [name]]
        _, parameters, macs = rows[name].split(maxsplit=2)
        assert total.split()[1:4] == [parameters, *macs.split()] and COUNTED in " ".join(out.getvalue().split())


@pytest.mark.parametrize("n, text", [(0, ""), (1, "1.00"), (999, "999"), (1000, "1.00 k"), (1234567, "1.23 M"), (55_000_000, "55.0 M"),
                                     (9_994, "9.99 k"), (9_996, "10.0 k"), (99_960, "100 k"), (999_499, "999 k"), (999_999, "1.00 M"),
                                     (10**9 - 1, "1000 M"), (10**10, "10000 M")])
def test_amount(n, text):
    assert amount(n, 1000, "", "k", "M") == text


def test_amounts_of_bytes():
    assert amount(1023, 1024, "B", "KiB") == "1023 B" and amount(2**20 - 1, 1024, "B", "KiB", "MiB") == "1.00 MiB"
    assert amount(10**9, 1000, "", "k", "M", "G") == "1.00 G"


def test_convolutions_of_grey_images_are_not_depthwise():
    """One channel comes in, and every filter sees it; a depthwise convolution keeps the number of channels."""
    assert summary("vit_mini_convpool_32", in_chans=1)[0].kind == summary("cvt", in_chans=1)[0].kind == "conv"
    kinds = {row.name: row.kind for row in summary("cvt", in_chans=1)}
    assert kinds["stage0.blocks.0.attn.conv_proj_q.conv"] == "depthwise conv" and list(kinds.values()).count("depthwise conv") == 3 * 13


def test_bad_input():
    with pytest.raises(ValueError, match="did you mean"):
        summary("vit_tiny_patch4_31")
    with pytest.raises(ValueError, match="vit has no field"):
        summary("vit", depths=3)
