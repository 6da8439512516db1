"""trace(): every named intermediate of the definitions, where it was computed, and two traces held against each other."""
import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import numpyvit
from numpyvit import functional as F
from numpyvit.ops.attention import attention_backward, attention_forward
from numpyvit.ops.conv import im2col
from numpyvit.ops.layer_norm import layer_norm_forward
from numpyvit.errors import UserError
from numpyvit.inspection.trace import Comparison, Key, Tensor, Trace, compare, print_comparison, print_trace, trace

ROOT = Path(__file__).parent.parent
WITH_BOTH_BACKENDS = """
import sys, numpy as np, numpyvit
from numpyvit.inspection.trace import trace
model = numpyvit.create_model(sys.argv[1], img_size=16, seed=3, num_classes=4)
rng = np.random.default_rng(0)
images, dlogits = rng.standard_normal((2, 3, 16, 16), np.float32), rng.standard_normal((2, 4), np.float32)
with trace(model, boundary=True) as tensors:
    logits, cache = model.forward(images)
    model.backward(dlogits, cache)
tensors.save(sys.argv[2])
"""


@pytest.fixture
def reference(monkeypatch):
    """trace() asks for this; here the definitions are called directly."""
    monkeypatch.setattr(F, "REFERENCE", True)


def source_line(tensor):
    return (ROOT / tensor.file).read_text().splitlines()[tensor.line - 1]


def test_every_name_with_the_line_that_computed_it(reference, rng=np.random.default_rng(0)):
    q, k, v = rng.standard_normal((3, 2, 3, 5, 7))
    with trace() as tensors:
        y, cache = attention_forward(q, k, v)
        attention_backward(np.ones_like(y), cache)
    names = {(t.key.op, t.key.name) for t in tensors}
    assert {("attention_forward", n) for n in ("q", "k", "v", "scores", "attn", "dropped", "y")} <= names
    assert {("attention_backward", n) for n in ("dv", "ddropped", "dattn", "dscores", "dq", "dk")} <= names
    assert {("softmax_forward", n) for n in ("x", "e", "y")} <= names        # what it calls, too
    for name, shape, code in [("scores", (2, 3, 5, 5), "scores = (q @"), ("y", (2, 3, 5, 7), "y = dropped @ v")]:
        (tensor,) = tensors.find(name, "attention_forward")
        assert tensor.shape == shape and source_line(tensor).strip().startswith(code)
    np.testing.assert_allclose(tensors.find("scores")[0].array, q @ k.swapaxes(-1, -2) / 7**0.5, rtol=1e-12)


def test_rebound_and_filled_arrays(reference, rng=np.random.default_rng(0)):
    """A name bound twice is two tensors; one filled in place is recorded full; the caller's later changes do not show."""
    x = rng.standard_normal((1, 4, 4, 2))
    with trace() as tensors:
        rows = im2col(x, (3, 3), 1, 1)
        q = rng.standard_normal((1, 1, 3, 2))
        attention_forward(q, q, q, bias=np.ones((1, 3, 3)))
    (filled,) = tensors.find("rows", "im2col")
    np.testing.assert_array_equal(filled.array.reshape(rows.shape), rows)
    assert [t.key.binding for t in tensors.find("scores")] == [0, 1]
    before, after = tensors.find("scores")
    np.testing.assert_array_equal(after.array, before.array + 1)
    q += 9
    assert np.abs(tensors.find("q")[0].array - q).min() > 8


def test_tracing_changes_nothing_and_ends(reference, rng=np.random.default_rng(0)):
    x, weight, bias = rng.standard_normal((3, 5)), np.ones(5), np.zeros(5)
    plain, _ = layer_norm_forward(x, weight, bias)
    with trace() as tensors:
        traced, _ = layer_norm_forward(x, weight, bias)
    count = len(tensors)
    layer_norm_forward(x, weight, bias)
    np.testing.assert_array_equal(plain, traced)
    assert len(tensors) == count and sys.gettrace() is None
    with pytest.raises(ZeroDivisionError), trace():
        1 / 0
    assert sys.gettrace() is None


def test_a_compiled_backend_is_told_what_to_set(monkeypatch):
    monkeypatch.setattr(F, "REFERENCE", False)
    with pytest.raises(ValueError, match="NUMPYVIT_REFERENCE=1"):
        trace()


def test_compare(reference, tmp_path, rng=np.random.default_rng(0)):
    x, weight, bias = rng.standard_normal((3, 5)), np.ones(5), np.zeros(5)

    def traced(x):
        with trace() as tensors:
            layer_norm_forward(x, weight, bias)
        return tensors

    a, b = traced(x), traced(x * 1.001)
    assert all(row.difference == 0 and not row.note for row in compare(a, a))
    rows = {row.key.name: row for row in compare(a, b)}
    assert rows["x"].difference == pytest.approx(np.abs(x).max() * 0.001) and rows["weight"].difference == 0
    assert {row.note for row in compare(a, traced(x[:2]))} > {"(3, 5) and (2, 5)"}
    assert [row.note for row in compare(a, Trace(a[1:]))][0] == "only in the first"
    assert compare(Trace(a[1:]), a)[-1].note == "only in the second"
    a.save(tmp_path / "a.npz")
    loaded = Trace.load(tmp_path / "a.npz")
    assert [(t.key, t.file, t.line) for t in loaded] == [(t.key, t.file, t.line) for t in a]
    assert all(row.difference == 0 for row in compare(a, loaded))


def test_nan_and_infinity_count_where_they_differ():
    from numpyvit.inspection.trace import difference
    key = Key("", "op", 0, "x", 0)
    a, same, other = (Tensor(key, "f", 1, np.array(x)) for x in ([np.nan, -np.inf, 1], [np.nan, -np.inf, 1], [0, -np.inf, 1]))
    assert difference(a, same).difference == 0 and difference(a, same).magnitude == 1
    assert np.isnan(difference(a, other).difference)


def test_load_refuses_other_files(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "y.npz", a=np.ones(2))
    np.savez(tmp_path / "z.npz", about=np.array("[3]"))
    np.save(tmp_path / "v.npy", np.ones(2))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "y.npz").read_bytes()[:-30])
    for name in ("x.npz", "y.npz", "z.npz", "v.npy", "cut.npz"):
        with pytest.raises(ValueError, match=f"{name}: expected a file that Trace.save wrote"):
            Trace.load(tmp_path / name)


@pytest.mark.parametrize("model", ["vit_nano_patch4_32", "vit_mini_convpool_32", "swin_nano_patch2_window4_32",
                                   "swin_mini_convpool_32", "cvt_nano_32", "cvt_mini_convpool_32"])
def test_two_backends_tensor_by_tensor(model, tmp_path):
    """Arguments and results of every op, from the definitions in one process and from the kernels in another."""
    for backend in ("1", "0"):
        subprocess.run([sys.executable, "-c", WITH_BOTH_BACKENDS, model, tmp_path / f"{backend}.npz"], check=True, cwd=ROOT,
                       env={**os.environ, "NUMPYVIT_REFERENCE": backend})
    rows = compare(Trace.load(tmp_path / "1.npz"), Trace.load(tmp_path / "0.npz"))
    both = [row for row in rows if not row.note]
    modules = {row.key.module for row in both}
    assert len(both) > 200 and any("blocks.0.attn" in name for name in modules)
    ours = [row for row in both if row.key.op.endswith(("_forward", "_backward")) and row.key.name != "index"]
    worst = max(ours, key=lambda row: row.difference / (row.magnitude + 1e-3))
    assert worst.difference <= 1e-3 * (worst.magnitude + 1e-3), worst


def test_tables(reference, rng=np.random.default_rng(0)):
    model = numpyvit.create_model("vit", img_size=8, patch_size=4, embed_dim=12, depth=1, num_heads=3, num_classes=2)
    with trace(model) as tensors:
        layer_norm_forward(rng.standard_normal((3, 5)), np.ones(5), np.zeros(5))
    out = io.StringIO()
    print_trace(tensors, Console(file=out))
    print_comparison(compare(tensors, tensors), Console(file=out))
    text = out.getvalue()
    assert "numpyvit/ops/layer_norm.py:" in text and "centred" in text and "3×5" in text and "max |a − b|" in text


def test_operands_scalars_and_callers(reference, tmp_path, rng=np.random.default_rng(0)):
    """Which arrays a line read, which numbers it had, and who called: also from a file."""
    q, k, v = rng.standard_normal((3, 2, 3, 5, 7))
    with trace() as tensors:
        attention_forward(q, k, v)
    tensors.save(tmp_path / "a.npz")
    for found in (tensors, Trace.load(tmp_path / "a.npz")):
        (scores,) = found.find("scores", "attention_forward")
        assert [key.name for key in scores.operands] == ["q", "k"] and scores.scalars["scale"] == 1 / 7**0.5
        arrays = [next(t.array for t in found if t.key == key) for key in scores.operands]
        np.testing.assert_allclose(scores.array, arrays[0] @ arrays[1].swapaxes(-1, -2) * scores.scalars["scale"], rtol=1e-12)
        (x,) = found.find("x", "softmax_forward")
        assert x.caller.startswith("attention_forward numpyvit/ops/attention.py:") and x.operands == ()


def test_in_place_changes_are_recorded_before_and_after(reference):
    from numpyvit.ops.optim import Update, adamw_step
    data, grad, m, v = np.ones(3), np.full(3, 2.0), np.zeros(3), np.zeros(3)
    with trace() as tensors:
        adamw_step(data, grad, m, v, Update(0.1, 1), 0.9, 0.99, 1e-8)
    before, after = tensors.find("data", "adamw_step")
    np.testing.assert_array_equal(before.array, 1)
    np.testing.assert_array_equal(after.array, data)
    assert after.operands == (before.key,) and before.key.binding == 0


@pytest.mark.parametrize("family", ["vit", "swin", "cvt"])
def test_layers_too(reference, family, rng=np.random.default_rng(0)):
    """Residual sums and gradients: what the parameters have in the end is what was recorded last."""
    fields = {"vit": dict(patch_size=4, embed_dim=12, depth=1, num_heads=3),
              "swin": dict(patch_size=2, embed_dim=8, depths=(2,), num_heads=(2,), window_size=2),
              "cvt": dict(embed_dims=(6,), depths=(1,), num_heads=(2,), patch_sizes=(3,), patch_strides=(2,), patch_paddings=(1,))}
    model = numpyvit.create_model(family, img_size=8, num_classes=2, dtype="float64", **fields[family])
    with trace(model, layers=True) as tensors:
        logits, cache = model.forward(rng.standard_normal((2, 3, 8, 8)))
        model.backward(rng.standard_normal(logits.shape), cache)
    last = {}
    for t in tensors:
        if t.key.name.endswith(".grad"):
            last[".".join(filter(None, [t.key.module, t.key.name.removesuffix(".grad")]))] = t
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert last.keys() <= grads.keys() and len(last) > len(grads) / 2
    for name, t in last.items():
        np.testing.assert_array_equal(t.array, grads[name], err_msg=name)
        assert t.operands, name
    assert any("Block" in t.key.op for t in tensors)


def traced(images=1, change=0.0):
    """A trace of a tiny model's forward pass."""
    model = numpyvit.create_model("vit", img_size=8, patch_size=4, embed_dim=12, depth=1, num_heads=3, num_classes=2)
    model.head.weight.data[0, 0] += change
    with trace(model) as tensors:
        model.forward(np.ones((images, 3, 8, 8), np.float32))
    return tensors


@pytest.fixture
def plain(reference, monkeypatch):
    """A forward pass of a model runs the definitions."""
    for name in [name for name in vars(F) if name.endswith(("_forward", "_backward"))]:
        function = getattr(F, name)
        file = function.__module__.rpartition(".")[2]
        monkeypatch.setattr(F, name, getattr(__import__(f"numpyvit.ops.{file}", fromlist=[name]), name))


def test_17_a_repr_is_short_and_says_how_to_see_all(plain, capsys):
    """Of a trace, a slice, one tensor and a comparison: some lines, no numbers of arrays; show() prints every row."""
    tensors, comparison = traced(), compare(traced(), traced(change=1.0))
    assert len(tensors) > 40
    for found, text in ((tensors, ".show() prints all"), (tensors[3:40], ".show() prints all"), (comparison, "1 of"),
                        (tensors.find("x"), "<Trace: "), (comparison.differing(), "the first at head ")):
        assert len(repr(found).splitlines()) <= 10 and len(repr(found)) < 1500 and text in repr(found)
        assert type(found) in (Trace, Comparison)
    assert f"<Trace: {len(tensors)} tensors of " in repr(tensors) and repr(Trace()) == "<Trace: no tensors>"
    assert repr(tensors[0]).startswith(f"<{tensors[0].key}: {tensors[0].shape} float32, numpyvit/ops/")
    assert len(repr(tensors[0])) < 150
    tensors.show(Console(file=(out := io.StringIO())))
    assert len(out.getvalue().splitlines()) > len(tensors)
    comparison.show()
    assert len(capsys.readouterr().out.splitlines()) > len(comparison)


def test_17_a_trace_inside_a_trace_is_recorded_by_both(reference, rng=np.random.default_rng(0)):
    x, weight, bias = rng.standard_normal((3, 5)), np.ones(5), np.zeros(5)
    with trace() as alone:
        layer_norm_forward(x, weight, bias)
    with trace() as outer:
        layer_norm_forward(x, weight, bias)
        with trace(boundary=True) as inner:
            layer_norm_forward(x, weight, bias)
        layer_norm_forward(x, weight, bias)
    assert len(alone) > 3 and len(outer) == 3 * len(alone) and sys.gettrace() is None
    assert [t.key.name for t in inner] == ["x", "weight", "bias", "result[0]"]
    assert {t.key.call for t in outer} == {0, 1, 2}
    first, second = trace(), trace()                                         # they overlap: the first ends first
    with contextlib.ExitStack() as stack:
        a = first.__enter__()
        b = stack.enter_context(second)
        layer_norm_forward(x, weight, bias)
        first.__exit__(None, None, None)
        layer_norm_forward(x, weight, bias)
    layer_norm_forward(x, weight, bias)
    assert (len(a), len(b)) == (len(alone), 2 * len(alone)) and sys.gettrace() is None


def a_tensor():
    return Tensor(Key("", "op", 0, "x", 0), "f", 1, np.ones(2))


@pytest.mark.parametrize("call, expected, got, advice", [
    (lambda: trace("vit_nano_patch4_32"), "trace: model: expected a model", "'vit_nano_patch4_32'", "create_model("),
    (lambda: trace(np.ones((2, 3))), "trace: model: expected a model", "got an array of shape (2, 3)", "create_model("),
    (lambda: trace(None, np.ones(2)), "trace: copy: expected True or False", "got an array of shape (2,)", "inside the with block"),
    (lambda: trace(layers="yes"), "trace: layers: expected True or False", "got 'yes'", "inside the with block"),
    (lambda: trace(boundary=True, layers=True), "expected boundary or layers", "got both", "arguments and results"),
    (lambda: print_trace(trace()), "print_trace: expected a Trace", "got a GeneratorContextManager", "with trace(model) as tensors"),
    (lambda: print_trace(compare([], [])), "print_trace: expected a Trace", "got a Comparison", "print_comparison"),
    (lambda: print_trace([1, 2]), "print_trace: expected a Trace", "got a list of int", "with trace(model)"),
    (lambda: Trace([1, 2]).save("x.npz"), "save: expected a Trace", "got a Trace of int", "with trace(model)"),
    (lambda: compare("a.npz", []), "compare: a: expected a Trace", "got 'a.npz'", "Trace.load reads"),
    (lambda: compare([], Path("b.npz")), "compare: b: expected a Trace", "PosixPath", "Trace.load reads"),
    (lambda: compare(a_tensor(), []), "compare: a: expected a Trace", "got a Tensor", "put it into a list"),
    (lambda: print_comparison(Trace()), "expected a Comparison", "got a Trace", "print_trace prints"),
    (lambda: print_comparison(3), "expected a Comparison", "got 3", "compare(a, b)"),
    (lambda: print_trace([a_tensor()], io.StringIO()), "console: expected a rich.console.Console", "got a StringIO", "Console(file="),
    (lambda: Trace().find(3), "find: name: expected a text", "got 3", "find('scores'"),
    (lambda: Trace().find("x", module=None), "find: module: expected a text", "got None", "find('scores'"),
    (lambda: Trace().save(3), "save: path: expected the name of a file", "got 3", "'trace.npz'"),
    (lambda: Trace.load([a_tensor()]), "load: path: expected the name of a file", "got a list of Tensor", "'trace.npz'"),
])
def test_17_a_wrong_argument_is_one_sentence(reference, call, expected, got, advice):
    with pytest.raises(UserError) as error:
        call()
    assert expected in str(error.value) and got in str(error.value) and advice in str(error.value), error.value
    assert sys.gettrace() is None
