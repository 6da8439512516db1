"""The explorer's recording: the definitions themselves, on arrays that remember how they were computed."""
import base64
import dataclasses
import gzip
import json
import os
import re

import numpy as np
import pytest

from explorer_pages import MEAN, MODELS, STD, page, recording, subject
from numpyvit import functional as F
from numpyvit.errors import UserError
from numpyvit.explorer.pack import arrays_of, keep_bits, on_grid, shortest, steps_of
from numpyvit.explorer.record import definitions, float64_twin
from numpyvit.explorer.tape import Tape
from numpyvit.explorer.write import explore

each_model = pytest.mark.parametrize("name", MODELS)


@each_model
def test_recording_is_the_pass_itself(name):
    """Logits, loss, every gradient and the image's are those of the definitions on plain arrays, to the last bit."""
    model, pixels, labels, train = subject(name)
    r = recording(name)
    plain = float64_twin(model)
    plain.zero_grad()
    images = (pixels / 255.0 - MEAN[:, None, None]) / STD[:, None, None]
    with definitions():
        logits, cache = plain.forward(images, train, rng=3 if train else None)
        loss, loss_cache = F.cross_entropy_forward(logits, labels)
        dimages = plain.backward(F.cross_entropy_backward(1.0, loss_cache), cache)
    for key, value in [("logits", logits), ("loss", loss), ("dimages", dimages)]:
        np.testing.assert_array_equal(r.tape.value(r.named[key]), value)
    for path, p in plain.named_parameters():
        np.testing.assert_array_equal(r.tape.value(r.gradients[path]), p.grad, err_msg=path)


@each_model
def test_nothing_that_depends_on_image_or_weights_is_a_table(name):
    """An array that left the tape would come back as a constant: the constants of two passes on different numbers are the same."""
    first, second = (recording(name, seed=seed, noise=0.1 + seed) for seed in (0, 1))
    assert len(first.tape.nodes) == len(second.tape.nodes)
    of = [[(i, n.attrs["name"], r.tape.value(i)) for i, n in enumerate(r.tape.nodes) if n.op == "leaf" and n.attrs["kind"] == "table"]
          for r in (first, second)]
    for (i, what, a), (_, _, b) in zip(*of, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=f"{name}: {what}, node {i}")
    for a, b in zip(first.tape.tables, second.tape.tables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not [n.attrs["name"] for n in first.tape.nodes if n.op == "embedded"], "values that the page cannot compute"


@each_model
def test_steps_have_unique_addresses_and_every_gradient(name):
    r = recording(name)
    steps = steps_of(r)
    assert len({s["id"] for s in steps}) == len(steps) and not any(set("[]#") & set(s["id"]) for s in steps)
    assert {s["phase"] for s in steps} == {"forward", "backward"}
    nodes = {s["node"] for s in steps}
    assert set(r.gradients.values()) | set(r.named.values()) <= nodes
    phases = [s["phase"] for s in steps]
    assert phases == sorted(phases, key=["forward", "backward"].index)


def test_names_that_the_lines_gave():
    steps = {(s["module"], s["op"], s["name"]): s for s in steps_of(recording("vit"))}
    for key in [("blocks.0.attn", "attention_forward", "scores"), ("blocks.1.attn", "softmax_forward", "e"),
                ("blocks.1.attn", "softmax_backward", "dscores"), ("blocks.0.norm1", "layer_norm_backward", "dnorm"),
                ("blocks.0.attn.qkv", "parameter", "weight"), ("loss", "cross_entropy_forward", "log_p"),
                ("blocks.0.mlp", "gelu_forward", "y")]:
        assert key in steps, key
    assert any(s["name"] == "weight.grad" and s["module"] == "blocks.0.attn.qkv" for s in steps.values())


def test_recording_leaves_no_trace():
    import sys
    model, pixels, labels, _ = subject("vit")
    weights, before = model.flat.copy(), {name: value for name, value in vars(F).items()}
    recording("vit")
    np.testing.assert_array_equal(model.flat, weights)
    assert vars(F) == before and sys.gettrace() is None
    from numpyvit import layers
    assert layers.np is np


def test_in_place_changes_are_values_of_their_own():
    tape = Tape()
    x = tape.leaf(np.arange(12.0).reshape(3, 4), "x")
    y = x * 2
    before = y.current()
    part = y[1:, ::2]
    part += 100
    y[0, 0] = -1
    np.testing.assert_array_equal(tape.value(before), 2 * np.arange(12.0).reshape(3, 4))
    expected = 2 * np.arange(12.0).reshape(3, 4)
    expected[1:, ::2] += 100
    np.testing.assert_array_equal(tape.value(part.current()), expected[1:, ::2])
    expected[0, 0] = -1
    np.testing.assert_array_equal(tape.value(y.current()), expected)
    with pytest.raises(NotImplementedError):
        float(x.sum())


@pytest.mark.parametrize("bits", [24, 16, 12, 8])
def test_rounded_weights(bits, rng=np.random.default_rng(0)):
    x = np.concatenate([rng.standard_normal(1000), [0, -0.0, 1, -np.inf, np.inf]]).astype(np.float32)
    y = keep_bits(x, bits)
    finite = np.isfinite(x)
    assert np.all(np.abs(y[finite] - x[finite]) <= np.abs(x[finite]) * 2.0**-bits) and np.array_equal(y[~finite], x[~finite])
    assert np.array_equal(keep_bits(y, bits), y) and (bits < 24 or np.array_equal(y, x))


def decoded(array, scale=0, offset=0):
    """As load.js does."""
    return (np.asarray(array, np.float64) - offset) * 2.0**scale


@pytest.mark.parametrize("bits", [24, 14, 8, 4])
def test_weights_on_a_grid(bits, rng=np.random.default_rng(0)):
    """Rounded by at most half a step of 2^-bits of their size, and short in the file without another loss."""
    x = (rng.standard_normal((60, 70)) * 0.037).astype(np.float32)
    y = on_grid(x, bits)
    size = np.sqrt(np.mean(np.square(x, dtype=np.float64)))
    assert np.abs(y - x).max() <= size * 2.0**-bits / 2 and (bits < 24 or y is x) and y.dtype == x.dtype
    array, how = shortest(np.float64(y))
    assert array.dtype == {24: np.float32, 14: np.float32, 8: np.int16, 4: np.int8}[bits]
    np.testing.assert_array_equal(decoded(array, **how), y)
    assert np.array_equal(on_grid(np.zeros((2, 2), np.float32), bits), np.zeros((2, 2)))


@pytest.mark.parametrize("value", [[0.0, -0.0], [], [np.inf, 1.0], [-np.inf, 0.0], [np.nan], [1e300, 1e-300], [5e-324], [0.1], [255.0], [-3.0, 0.75]])
def test_the_shortest_type_keeps_the_values(value):
    value = np.array(value, dtype=np.float64)
    array, how = shortest(value)
    np.testing.assert_array_equal(decoded(array, **how), value)


def test_arrays_keep_every_bit():
    r = recording("swin")
    rows, blob = arrays_of(r)
    start = 0
    for row in rows:
        dtype = np.dtype("<" + row["dtype"])
        planes = np.frombuffer(blob, np.uint8, row["size"] * dtype.itemsize, start).reshape(dtype.itemsize, -1)
        values, start = np.ascontiguousarray(planes.T).view(dtype).ravel(), start + planes.size
        values = decoded(values, row.get("scale", 0), row.get("offset", 0))
        kept = r.tape.value(row["node"]) if "node" in row else r.tape.tables[row["table"]]
        np.testing.assert_array_equal(values, kept.ravel())
    assert start == len(blob)


def test_too_large_a_model_is_refused(monkeypatch):
    from numpyvit.explorer import write
    model, pixels, _, _ = subject("vit")
    monkeypatch.setattr(write, "LARGEST", 808_000)
    assert 4 <= write.bits_that_fit(model) < 24                               # rounded weights, and the page says so
    monkeypatch.setattr(write, "LARGEST", 803_000)
    with pytest.raises(UserError, match="parameters does not fit.* train vit_.*_32"):
        explore(model, pixels[0], range(5), MEAN, STD)
    monkeypatch.setattr(write, "LARGEST", 10_000_000)
    monkeypatch.setattr(write, "MOST_NUMBERS", 1000)
    with pytest.raises(UserError, match="numbers for one image.* train vit_.*_32"):
        explore(model, pixels[0], range(5), MEAN, STD)


def test_a_page_without_room_for_the_update_does_without(monkeypatch):
    """Muon's products of wide matrices are more numbers than the whole pass: the page leaves the step out and says so."""
    from numpyvit.explorer import write
    model, pixels, labels, _ = subject("vit")
    update = an_update(model, "muon")
    pass_alone, with_update = (write.numbers_of(write.record(model, pixels[:1], labels[:1], MEAN, STD, optimizer=o)) for o in (None, update))
    assert pass_alone < with_update
    monkeypatch.setattr(write, "document", lambda recording, about: about)
    for most, there in ((with_update, True), (pass_alone, False)):
        monkeypatch.setattr(write, "MOST_NUMBERS", most)
        about = explore(model, pixels[0], [*"abcde"], MEAN, STD, update=update)
        assert about["bits"] == 24 and about["update_left_out"] is not there
    monkeypatch.setattr(write, "LARGEST", next(n for n in range(800_000, 900_000, 100) if fits_in(n, model, monkeypatch)))
    about = explore(model, pixels[0], [*"abcd", b"b \xff".decode(errors="surrogateescape")], MEAN, STD, update=update)
    assert about["bits"] < 24 and about["update_left_out"] and about["classes"] == [*"abcd", "b ?"]


def an_update(model, kind, seed=0, **settings):
    """The UpdateStep of an optimiser with random vectors."""
    from numpyvit.explorer.update import UpdateStep
    from numpyvit.training.optim import Optimizer
    rng, optimizer = np.random.default_rng(seed), Optimizer(float64_twin(model), kind, **settings)
    vectors = {name: np.abs(rng.standard_normal(v.size, dtype=np.float32)) * 0.01 for name, v in optimizer.vectors.items()}
    return UpdateStep(optimizer, kind, 0.01, 7, vectors)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_what_the_optimiser_remembers_is_rounded_only_where_the_page_has_no_room(kind, monkeypatch):
    """24 bits, then fewer, and with Muon never below 16: its steps would be wrong."""
    from numpyvit.explorer import write
    model, pixels, _, _ = subject("vit")

    def kept(largest):
        monkeypatch.setattr(write, "LARGEST", largest)
        update = an_update(model, kind)
        text = explore(model, pixels[0], [*"abcde"], MEAN, STD, update=update)
        about = json.loads(gzip.decompress(base64.b64decode(re.search('id="program">([^<]*)<', text)[1])))["about"]
        assert about["state_bits"] in (None, update.bits)
        return about["state_bits"], about["update_left_out"], len(text)

    monkeypatch.setattr(write, "OVERHEAD", 0)                                 # so that the weights are not rounded first
    bits, left_out, largest = kept(10_000_000)
    assert (bits, left_out) == (24, False)
    seen = []
    for size in range(largest, largest - 30_000, -4_000):
        bits, left_out, length = kept(size)
        assert left_out is (bits is None) and (bits is None or length < size)
        seen.append(bits or 0)
    assert seen == sorted(seen, reverse=True) and {16, 0} < set(seen) and (10 in seen) is (kind == "adamw")


def fits_in(size, model, monkeypatch):
    from numpyvit.explorer import write
    monkeypatch.setattr(write, "LARGEST", size)
    return write.bits_that_fit(model) is not None


def test_markup_in_names_stays_data(tmp_path):
    """Whatever a class or a file is called, the page's own text does not change."""
    r = recording("vit")
    plain = page(r, tmp_path / "a.html").read_text()
    hostile = page(r, tmp_path / "b.html", image="</script><img src=x onerror=alert(1)>.png", classes=["<!--", "]]>", "\u2028", "</style>", "ü"])
    hostile = hostile.read_text()
    assert hostile.count("<") == plain.count("<") and "onerror" not in hostile
    assert dataclasses.is_dataclass(r.model.config)


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd", "muon"])
def test_the_update_is_the_optimisers(kind):
    """A step of training/optim.py on the recorded gradient, from the same moments, gives the recorded weights."""
    from numpyvit.explorer.record import record
    model, pixels, labels, _ = subject("vit")
    update = an_update(model, kind, weight_decay=0.05, clip_norm=0.5)
    optimizer, vectors, twin = update.optimizer, update.vectors, update.optimizer.model
    r = record(model, pixels, labels, MEAN, STD, optimizer=update)
    for name, p, start, end in twin.layout():
        p.grad[...] = r.tape.value(r.gradients[name])
        for key, vector in vectors.items():
            optimizer.vectors[key][start:end] = vector[start:end]
    with definitions():
        optimizer.step(0.01, 7, optimizer.grad_norm())
    for name, p in twin.named_parameters():
        np.testing.assert_allclose(r.tape.value(r.updated[name]), p.data, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("settings", [dict(ema=0.0), dict(ema=0.0, optimizer="muon", schedule="one_cycle")], ids=["linear", "one_cycle"])
def test_the_step_of_a_run_has_the_rate_of_its_schedule(settings, tmp_path, monkeypatch):
    """Stopped, finished, extended: the rate is the one that metrics.jsonl has of the step that the page names."""
    from numpyvit.errors import Interrupted
    from numpyvit.explorer.update import update_of
    from numpyvit.runs.classifier import Classifier
    from numpyvit.runs.folder import RunFolder
    from numpyvit.training import loop
    from test_training import stop_at
    from tiny import recipe, small_shapes
    small_shapes(monkeypatch)
    run = tmp_path / "run"

    def rates():
        return {entry["step"]: entry["lr"] for entry in RunFolder(run).read_metrics() if entry["kind"] == "train"}

    kind = settings.get("optimizer", "adamw")
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(Interrupted):
            loop.train(recipe(**settings), run)
    stopped = update_of(Classifier(run))
    assert not stopped.ended and stopped.number == len(rates()) + 1 == 6
    loop.resume(run)
    assert stopped.lr == rates()[6] != recipe(**settings).lr
    assert stopped.text() == f"{kind}, step 6, learning rate {rates()[6]:.4g}"
    ended = update_of(Classifier(run))
    assert (ended.ended, ended.number, ended.lr) == (True, 13, rates()[12]) and ended.lr < recipe(**settings).lr / 4
    assert ended.text() == (f"{kind}, step 13, one more than the run took, with the learning rate of step 12, its last, "
                                  f"{rates()[12]:.4g}")
    with monkeypatch.context() as patch:                                      # a schedule of its own
        stop_at(patch, 1)
        with pytest.raises(Interrupted):
            loop.resume(run, steps=5)
    stopped = update_of(Classifier(run))
    loop.resume(run)
    assert (stopped.ended, stopped.number, stopped.lr) == (False, 15, rates()[15])
    ended = update_of(Classifier(run))
    assert (ended.ended, ended.number, ended.lr) == (True, 18, rates()[17])
    for path in RunFolder(run).checkpoints():
        os.remove(path)
    assert update_of(Classifier(run)) is None                                 # nothing is left of what the optimiser remembered


@pytest.mark.parametrize("settings, plan", [(dict(ema=0.9), {}), (dict(ema=0.0, keep="best", lr=1e-9), {"steps": 60})], ids=["average", "best"])
def test_weights_that_the_run_does_not_go_on_from_have_no_step(settings, plan, tmp_path, monkeypatch):
    """What the optimiser remembers belongs to other weights than those of the page: their average, or the best of an earlier step."""
    from numpyvit.explorer.update import update_of
    from numpyvit.runs.classifier import Classifier
    from numpyvit.training import loop
    from tiny import recipe, small_shapes
    small_shapes(monkeypatch)
    loop.train(recipe(**settings | plan), tmp_path / "run")
    classifier = Classifier(tmp_path / "run")
    assert settings["ema"] or classifier.step < classifier.run.read_checkpoint().position.step
    assert update_of(classifier) is None


def test_the_step_of_a_run_that_ended_early(tmp_path, monkeypatch):
    """Its last step is the last that it took, not the last of its plan."""
    import numpyvit
    from numpyvit.explorer.update import update_of
    from numpyvit.runs.classifier import Classifier
    from tiny import FAMILIES, small_shapes
    data = small_shapes(monkeypatch)
    model = numpyvit.create_model("vit", num_classes=len(data.classes), **FAMILIES["vit"])
    run, rates = tmp_path / "run", []

    def callback(entry):
        rates.extend([entry["lr"]] if entry["kind"] == "train" else [])
        return len(rates) == 5
    numpyvit.fit(model, data, out=run, callback=callback, steps=20, batch_size=32, val=64)
    update = update_of(Classifier(run))
    assert (update.ended, update.number, update.lr) == (True, 6, rates[4])


def test_weights_without_a_run(tmp_path, capsys):
    """A weights file that says how images are prepared, in the place of a run."""
    import numpyvit
    from numpyvit.cli import main as cli
    from numpyvit.weights.images import Preprocessing
    from PIL import Image
    model, pixels, _, _ = subject("vit")
    numpyvit.save_weights(model, tmp_path / "plain.safetensors")
    model.classes, model.preprocessing = ["ant", "bee", "cat", "dog", "eel"], Preprocessing((8, 8), mean=tuple(MEAN), std=tuple(STD))
    numpyvit.save_weights(model, tmp_path / "w.safetensors")
    Image.fromarray(pixels[0].transpose(1, 2, 0)).save(tmp_path / "i.png")
    out = tmp_path / "e.html"
    assert cli.main(["explore", str(tmp_path / "w.safetensors"), str(tmp_path / "i.png"), "-o", str(out)]) == 0
    assert out.stat().st_size < 1_000_000
    assert cli.main(["explore", str(tmp_path / "plain.safetensors"), str(tmp_path / "i.png"), "-o", str(out)]) == 2
    assert cli.main(["explore", str(tmp_path / "nothing"), str(tmp_path / "i.png"), "-o", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_weights_that_do_not_tell_the_number_of_heads(tmp_path, capsys):
    """--set says what the file does not tell; a run tells all, and --set is an error."""
    import numpyvit
    from numpyvit.cli import main as cli
    from PIL import Image
    model, pixels, _, _ = subject("vit")
    numpyvit.save_weights(model, tmp_path / "w.pth", format="timm")
    Image.fromarray(pixels[0].transpose(1, 2, 0)).save(tmp_path / "i.png")
    out = tmp_path / "e.html"
    command = ["explore", str(tmp_path / "w.pth"), str(tmp_path / "i.png"), "-o", str(out)]
    assert cli.main(command) == 2 and "give num_heads" in capsys.readouterr().err
    assert cli.main([*command, "--set", "num_heads=3"]) == 0
    text = out.read_text(encoding="utf-8")
    about = json.loads(gzip.decompress(base64.b64decode(re.search('id="program">([^<]*)<', text)[1])))["about"]
    assert about["config"]["num_heads"] == 3
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    assert cli.main(["explore", str(run), str(tmp_path / "i.png"), "--set", "num_heads=3"]) == 2
    err = capsys.readouterr().err
    assert "num_heads cannot be chosen" in err and err.count("\n") == 1
