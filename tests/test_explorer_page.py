"""What the explorer's page says: clicked cells, colours, keyboard, addresses, narrow screens, and what changes when something is changed."""
import base64
import math
import os
import re

import numpy as np
import pytest

import numpyvit
from chromium import PROGRAM, Browser
from explorer_pages import MEAN, MODELS, STD, page, recording, subject
from numpyvit import functional as F
from numpyvit.explorer.record import definitions, float64_twin
from numpyvit.explorer.write import explore

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine (apt-get install chromium)")
NAMES = ("vit", "swin", "cvt_eval")
HOSTILE = ["</script><img src=x onerror=alert(1)>", "<!--", "${alert(1)}", "\u2028&amp;", "eel\" onclick=\"alert(1)"]
HOSTILE_FILE = "</title><script>alert(1)</script>.png"


@pytest.fixture(scope="module")
def recordings():
    return {name: recording(name) for name in NAMES}


@pytest.fixture(scope="module")
def pages(recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {name: page(r, folder / f"{name}.html", classes=HOSTILE, image=HOSTILE_FILE) for name, r in recordings.items()}


def number(text):
    """A number as the page prints it."""
    return float(text.replace("−", "-").replace("∞", "inf").replace(" ", ""))


CELL = """(() => { const canvas = document.querySelector('#map canvas'), box = canvas.getBoundingClientRect();
  scrollBy(0, box.top - 300);
  const at = canvas.getBoundingClientRect();
  return [at.left, at.top, at.width, at.height, canvas.width, canvas.height]; })()"""


@pytest.mark.parametrize("name", NAMES)
def test_clicked_cells_say_what_numpy_says(name, browser, pages, recordings, rng=np.random.default_rng(0)):
    """70 cells of each family: a click on the picture, then the text of the panel, parsed."""
    browser.open(pages[name])
    steps = browser.run("app.steps.filter(s => app.data(s).length).map(s => ({id: s.id, node: s.node, name: s.name, shape: app.shape(s)}))")
    for step in rng.choice(steps, 70):
        value = np.asarray(recordings[name].tape.value(step["node"]), float)
        browser.run(f"scrollTo(0, 0), numpyvit.goto('#' + {step['id']!r})")
        left, top, width, height, columns, rows = browser.run(CELL)
        r, c = int(rng.integers(rows)), int(rng.integers(columns))
        browser.click(left + (c + 0.5) * width / columns, top + (r + 0.5) * height / rows)
        text, shown, exact = browser.run("[$('cell-name').textContent, $('cell-value').textContent, Number($('cell-value').dataset.value)]")
        index = tuple(int(n) for n in text.removeprefix(step["name"]).strip("[]").split(",") if n)
        if value.ndim >= 2 and value.shape[-2] == rows > 1 and value.shape[-1] == columns:
            assert index == (*[0] * (value.ndim - 2), r, c), (step["id"], text, r, c)
        expected = value[index]
        assert math.isclose(number(shown), expected, rel_tol=2e-5, abs_tol=1e-12), (step["id"], text, shown, expected)
        assert exact == expected or math.isclose(exact, expected, rel_tol=1e-9, abs_tol=1e-12) or not math.isfinite(expected)


def test_an_empty_array_is_no_step(browser, pages):
    """A CvT without a class token splits off class tokens of shape (1, 0, C): there is nothing to see in them."""
    browser.open(pages["cvt_eval"])
    assert browser.run("app.engine.nodes.some(node => node.shape.includes(0)) && app.steps.every(s => !app.shape(s).includes(0))")


@pytest.mark.parametrize("name", NAMES)
def test_shown_terms_add_up(name, browser, pages, rng=np.random.default_rng(1)):
    """The table of terms as it is printed, all of its rows: their sum is the number on top."""
    browser.open(pages[name])
    ids = browser.run("app.order.filter(n => app.data(app.steps[n]).length).map(n => app.steps[n].id)")
    tables = 0
    for step in rng.choice(ids, 40):
        terms, value = browser.run(f"""(() => {{
          const step = app.byId.get({str(step)!r}), x = app.data(step);
          app.select(step.number, x.reduce((best, v, k) => Math.abs(v) > Math.abs(x[best]) && Number.isFinite(v) ? k : best, 0));
          document.querySelector('.terms > button')?.click();
          return [[...document.querySelectorAll('.terms td.term')].map(e => Number(e.dataset.value)), Number($('cell-value').dataset.value)]; }})()""")
        if terms and math.isfinite(value):
            tables += 1
            assert abs(sum(terms) - value) <= 1e-9 * sum(map(abs, terms)) + 1e-15, step
    assert tables > 10


def colour(x, low, high):
    """maps.js in Python: signed values around zero, red above; shares from white to green."""
    zero, plus, minus = (250, 250, 249), [(244, 165, 130), (178, 24, 43)], [(146, 197, 222), (33, 102, 172)]
    share = [(253, 253, 251), (109, 193, 164), (8, 81, 78)]
    stops = share if low >= 0 else [zero, *(plus if x >= 0 else minus)]
    a = min(1, abs(x) / (max(-low, high) or 1))
    first, second, t = (stops[0], stops[1], 2 * a) if a < 0.5 else (stops[1], stops[2], 2 * a - 1)
    return [p + (q - p) * t for p, q in zip(first, second)]


@pytest.mark.parametrize("name", NAMES)
def test_heat_maps_have_the_colours_of_their_numbers(name, browser, pages, recordings, rng=np.random.default_rng(2)):
    browser.open(pages[name])
    browser.run("document.documentElement.dataset.theme = 'light'")
    steps = browser.run("app.steps.map(s => ({id: s.id, node: s.node, shape: app.shape(s)}))")
    maps = [s for s in steps if len(s["shape"]) >= 2 and s["shape"][-2] > 1 and np.prod(s["shape"])]
    for step in rng.choice(maps, 12):
        value = np.asarray(recordings[name].tape.value(step["node"]), float)
        pixels = browser.run(f"numpyvit.goto('#' + {step['id']!r}), (c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])"
                             "(document.querySelector('#map canvas'))")
        flat = value.reshape(-1, *value.shape[-2:])[0]
        pixels = np.array(pixels).reshape(*flat.shape, 4)[..., :3]
        finite = value[np.isfinite(value)]
        expected = np.array([[colour(x, min(0, finite.min()), finite.max()) if np.isfinite(x) else (214, 211, 209) for x in row] for row in flat])
        assert np.abs(pixels - expected).max() <= 1, step["id"]


def test_a_tour_by_keyboard_alone(browser, pages):
    for name in NAMES:
        browser.open(pages[name])
        browser.key("t")
        stops, titles = browser.run("tour.stops.length"), []
        assert 10 <= stops <= 16
        for _ in range(stops):
            titles.append(browser.run("document.querySelector('#tour h2').textContent"))
            assert browser.run("document.activeElement.id") == "tour-next" and browser.run("!$('tour').hidden")
            browser.key("Enter")
        assert browser.run("$('tour').hidden") and len(set(titles)) == stops


def test_keys(browser, pages):
    browser.open(pages["vit"])
    browser.run("numpyvit.goto('#blocks.0.attn/attention_forward/scores')")
    browser.key("b")
    assert browser.run("app.step().name") == "dscores"
    browser.key("b")
    assert browser.run("app.step().name") == "scores"
    browser.key("Enter")
    before = browser.run("unflatten(app.cell, app.shape(app.step()))")
    browser.key("ArrowLeft" if before[-1] else "ArrowRight")
    after = browser.run("unflatten(app.cell, app.shape(app.step()))")
    assert after[-1] == before[-1] + (-1 if before[-1] else 1) and after[:-1] == before[:-1]
    browser.run("document.querySelector('.formula a').click()")
    assert browser.run("app.step().name") in ("q", "k") and browser.run("app.cell !== null")
    browser.run("document.activeElement.blur()")
    browser.key("Backspace")
    assert browser.run("app.step().name") == "scores" and browser.run("unflatten(app.cell, app.shape(app.step()))") == after
    browser.key("Escape")
    assert browser.run("app.cell === null")
    at = browser.run("app.at")
    browser.key("ArrowRight")
    assert browser.run("app.order.indexOf(app.at) - app.order.indexOf(%d)" % at) == 1


def test_addresses_are_restored(browser, pages):
    browser.open(pages["swin"])
    address = browser.run("app.address(app.steps.find(s => s.name === 'scores'), 7)")
    browser.call("Page.navigate", url="about:blank")
    browser.open(pages["swin"], address.replace("[", "%5B").replace("]", "%5D"))
    assert browser.run("app.address()") == address and browser.run("app.cell") == 7
    browser.run("numpyvit.goto('#no/such/step')")
    assert browser.run("app.address()") == address
    browser.run("numpyvit.goto('#' + app.steps[3].id)")
    assert browser.run("app.address()") != address
    browser.run("history.back()")
    browser.until("app.address()", address)


def test_a_step_is_printed_on_a_page(browser, pages):
    """A4, with the lines, the picture, the terms of a cell and the image."""
    for name in NAMES:
        browser.open(pages[name])
        for step in ("scores", "dweight", "weight", "loss"):
            browser.run(f"(s => app.select(s.number, 0))(app.steps.find(s => s.name === {step!r}))")
            paper = browser.call("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)["data"]
            assert len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(paper))) == 1, (name, step)


def test_a_head_that_the_next_block_does_not_have(browser, pages):
    """CvT's stages have different numbers of heads: the mean stands in, not NaN."""
    browser.open(pages["cvt_eval"])
    browser.run("photo.block = attentionBlocks().at(-1), photo.follow = false, photo.head = 1, drawPhoto()")
    assert "head 1" in browser.run("$('photo-text').textContent")
    browser.run("photo.block = attentionBlocks()[0], drawPhoto()")
    text = browser.run("$('photo-text').textContent")
    assert "mean of the heads" in text and "NaN" not in text


def test_names_are_shown_as_text(browser, pages):
    browser.open(pages["vit"])
    assert browser.run("$('image-name').textContent") == HOSTILE_FILE
    assert browser.run("$('predicted').textContent") == HOSTILE[browser.run("app.program.about.predicted")]
    assert browser.run("document.querySelectorAll('main img, main script').length") == 0
    assert HOSTILE_FILE in browser.run("document.title")


LAYOUT = r"""(() => {
  const bad = [], texts = [], boxOf = e => (q => [q.left, q.top, q.right, q.bottom])(e.getBoundingClientRect());
  const within = (a, b) => [Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])];
  const seen = e => { let box = [-1e9, -1e9, 1e9, 1e9];
    for (; e; e = e.parentElement) if (!/^visible$/.test(getComputedStyle(e).overflowX)) box = within(box, boxOf(e));
    return box; };
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) bad.push(`the page is ${wide} pixels wide`);
  const walker = document.createTreeWalker($('app'), NodeFilter.SHOW_TEXT), range = document.createRange();
  for (let t; (t = walker.nextNode()); ) {
    const e = t.parentElement;
    if (!t.textContent.trim() || !e.checkVisibility() || e.closest('.strip-label, #strip, svg, .visually-hidden, select, #tour')) continue;
    range.selectNodeContents(t);
    const box = seen(e);
    for (const q of range.getClientRects()) {
      const r = within([q.left, q.top, q.right, q.bottom], box);
      if (r[2] - r[0] > 1 && r[3] - r[1] > 1) texts.push([r, t.textContent.trim(), t]);
    }
  }
  texts.forEach(([a, one, node], k) => texts.slice(k + 1).forEach(([b, other, another]) => {
    const both = within(a, b);
    if (node !== another && both[2] - both[0] > 2 && both[3] - both[1] > 4) bad.push(`${one} overlaps ${other}`);
  }));
  for (const e of document.querySelectorAll('main :is(button:not(:disabled), select, input, a), #map, #photo, header button')) {
    if (!e.checkVisibility()) continue;
    e.scrollIntoView({block: 'center', inline: 'center'});
    const q = e.getClientRects()[0], hit = document.elementFromPoint(q.left + q.width / 2, q.top + q.height / 2);
    if (!hit || !(e.contains(hit) || hit.contains(e))) bad.push(`${e.outerHTML.slice(0, 80)} lies under ${hit?.outerHTML.slice(0, 80)}`);
  }
  scrollTo(0, 0);
  return {texts: texts.length, bad: bad.slice(0, 5)};
})()"""


@pytest.mark.parametrize("size", [(1400, 1000, 1), (700, 500, 2), (640, 400, 2), (390, 844, 1), (320, 640, 1)], ids=str)
def test_small_screens_and_zoom(size, pages):
    """Half the pixels with twice the density is a zoom of 200 %. Nothing is wider than the page, no two texts overlap,
    and the centre of everything that can be pressed is not covered by something else."""
    with Browser() as browser:
        for name in NAMES:
            browser.open(pages[name])
            browser.size(*size)
            for step in ("scores", "dweight", "weight", "loss"):
                browser.run(f"(s => app.select(s.number, 0))(app.steps.find(s => s.name === {step!r}))")
                found = browser.run(LAYOUT)
                assert found["bad"] == [] and found["texts"] > 100, (name, step, found)
            wide = browser.run("""[...new Map(app.steps.map(s => [s.op, s])).values()].filter(s => {
              app.select(s.number, 0); return document.documentElement.scrollWidth > innerWidth; }).map(s => s.id)""")
            assert wide == []
        assert browser.console == []


def test_the_cell_panel_is_reachable_on_a_small_screen(pages):
    """A click on the picture leaves the view where it is; a button beside it leads to the terms, and back."""
    top = "(id => $(id).getBoundingClientRect().top)"
    with Browser() as browser:
        for size in ((640, 400, 2), (390, 844, 1)):
            browser.size(*size)
            browser.open(pages["vit"], "#blocks.0.attn/attention_forward/scores")
            left, at, width, height, columns, rows = browser.run(CELL.replace("300", "60"))
            browser.click(left + width / 2, at + height / 2)
            assert browser.run("app.cell !== null && $('cell').querySelectorAll('.terms tr').length > 2")
            assert browser.run(f"{top}('cell')") > size[1]
            browser.run("document.querySelector('#step .jump').click()")
            at_the_end = browser.run("scrollY + innerHeight >= document.documentElement.scrollHeight - 2")
            assert (-2 < browser.run(f"{top}('cell')") < (size[1] / 2 if at_the_end else 2))
            assert browser.run("document.activeElement.id") == "cell"
            browser.run("document.querySelector('#cell .jump').click()")
            assert abs(browser.run(f"{top}('step')")) < 2
        browser.size(1400, 1000)
        assert not browser.run("document.querySelector('#step .jump')?.checkVisibility()")


STOP = """(() => { const stop = tour.stops[tour.at], strip = $("strip"),
  shown = stop.show ?? (stop.mode ? "#photo" : stop.cell ? "#cell" : ".code-line.lit"), box = document.querySelector(shown).getBoundingClientRect();
  return [box.top, box.height, getComputedStyle(strip).position === "sticky" ? strip.getBoundingClientRect().bottom : 0,
    $("tour").getBoundingClientRect().top]; })()"""


@pytest.mark.parametrize("size", [(1280, 800), (1920, 1080), (640, 400), (390, 844)], ids=str)
def test_what_a_stop_is_about_is_in_the_free_part_of_the_window(size, browser, pages):
    """Below the strip and above the tour's box: all of it, or its top and as much as there is room for."""
    for name in NAMES:
        browser.size(*size)
        browser.open(pages[name])
        for at in range(browser.run("tour.stops.length")):
            browser.run(f"showTour({at})")
            top, height, first, last = browser.run(STOP)
            said = browser.run("tour.stops[tour.at].title"), top, height, first, last
            assert first - 2 <= top and (top + height <= last + 2 or top <= first + 10), said
            assert "left" not in browser.run("tour.stops[tour.at].text()").split()
    browser.size(1400, 1000)


def test_class_names_have_room(browser, recordings, tmp_path):
    """CIFAR's longest names, on windows of the width of a small laptop; a longer name is in the title."""
    names = ["automobile", "airplane", "horse", "a very long name " * 5, "truck"]
    path = page(recordings["vit"], tmp_path / "page.html", classes=names)
    for width in (1000, 1280, 1320, 1400):
        browser.size(width, 800)
        browser.open(path)
        browser.run("askFor(0)")
        cut = browser.run("[...document.querySelectorAll('.classes button')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.title)")
        assert len(cut) <= 1 and all(title.startswith(names[3]) for title in cut), (width, cut)
    browser.size(1400, 1000)


@pytest.mark.parametrize("name", NAMES)
def test_header_and_tour_follow_a_change(name, browser, pages):
    """What the page says about prediction and label is true after a pixel or the label has changed."""
    browser.open(pages[name])
    for change in ("askFor((app.program.about.label + 1) % 5)",
                   "(d => (d.fill(255), app.edited([app.program.named.pixels])))(app.ownLeaf(app.program.named.pixels))",
                   "(row => (app.ownLeaf(row[1]).set([9, -9, 9, -9, 9], 0), app.edited([row[1]])))(app.program.parameters.at(-1))"):
        browser.run(change)
        logits, target = browser.run("[[...app.engine.get(app.program.named.logits)], [...app.engine.get(app.program.named.target)]]")
        predicted, asked = HOSTILE[int(np.argmax(logits))], HOSTILE[int(np.argmax(target))]
        assert browser.run("$('predicted').textContent") == predicted
        assert browser.run("$('label-text').textContent") == f" · the loss asks for {asked}"
        assert "after your change" in browser.run("$('changed').textContent")
        for title, said in (("The image", predicted), ("Logits", predicted), ("The loss", asked)):
            browser.run(f"showTour(tour.stops.findIndex(s => s.title === {title!r}))")
            assert f"“{said}”" in browser.run("document.querySelector('#tour p').textContent"), (title, change)
    browser.run("askFor(2)")
    assert f"“{HOSTILE[2]}”" in browser.run("document.querySelector('#tour p').textContent")        # while the stop is open


def test_a_malformed_address_is_no_address(browser, pages):
    browser.open(pages["vit"], "#%")
    browser.run("app.select(5)")
    assert browser.run("app.step().number") == 5 and browser.run("location.hash").endswith(browser.run("encodeURI(app.address())"))


def test_the_tangent_is_told_in_numbers(browser, pages):
    """The table is there before a value is dragged, and after an arrow key has moved it: value, tangent, loss."""
    browser.open(pages["vit"])
    browser.run("(row => app.select(app.stepOf.get(row[1]).number, 4))(app.program.parameters.find(r => /qkv.weight$/.test(r[0])))")
    table = "[...document.querySelectorAll('.whatif td:last-child')].map(e => e.textContent)"
    first, loss, slope, start = browser.run(f"[{table}, app.engine.get(app.program.named.loss)[0], app.data(gradientOf(app.step()))[4], app.data(app.step())[4]]")
    assert len(first) == 3 and math.isclose(number(first[1]), loss, rel_tol=1e-5) and first[1] == first[2]
    browser.run("document.querySelector('.whatif input').focus()")
    browser.key("ArrowRight")
    browser.until("app.isChanged && !!$('changed')", True)
    value, tangent, real = map(number, browser.run(table))
    now = browser.run("app.data(app.step())[4]")
    assert now != start and math.isclose(value, now, rel_tol=1e-4)
    assert math.isclose(tangent, loss + slope * (now - start), rel_tol=2e-5)
    assert math.isclose(real, browser.run("app.engine.get(app.program.named.loss)[0]"), rel_tol=1e-5)


def test_blank_cells_of_a_folded_vector_are_blank(browser, pages):
    browser.open(pages["vit"])
    drawn = browser.run("""(() => { const canvas = document.createElement("canvas"), data = Float64Array.from({length: 67}, (_, k) => k + 1),
      g = folded({rows: 1, columns: 67, cell: (r, c) => c});
      paint(canvas, data, g.rows, g.columns, g.cell, scaleOf(data));
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return [g.rows * g.columns, [...pixels].filter((_, k) => k % 4 === 3)]; })()""")
    assert drawn == [128, [255] * 67 + [0] * 61]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", ["pixel", "weight", "class"])
def test_what_if_is_numpys_answer(name, change, browser, pages, recordings):
    """After a change in the page: logits, loss and all gradients are those of NumPy after the same change; undo brings all back."""
    browser.open(pages[name])
    model, pixels, labels, _ = subject(name)
    plain, images = float64_twin(model), pixels.astype(float)
    if change == "pixel":
        images[0, :, 2:4, 2:4] = np.array([255, 0, 16]).reshape(3, 1, 1)
        browser.run("photo.colour = '#ff0010', photo.brush = 2, brushAt([3, 3], document.createElement('canvas')), app.edited([app.program.named.pixels])")
    elif change == "weight":
        path, p = next((path, p) for path, p in plain.named_parameters() if path.endswith("fc1.weight"))
        p.data.flat[5] += 0.75
        browser.run(f"(node => {{ app.ownLeaf(node)[5] += 0.75; return app.edited([node]); }})(app.program.parameters.find(r => r[0] === {path!r})[1])")
    else:
        labels = np.array([(labels[0] + 2) % 5])
        browser.run(f"askFor({labels[0]})")
    images = (images / 255 - MEAN[:, None, None]) / STD[:, None, None]
    plain.zero_grad()
    with definitions():
        logits, cache = plain.forward(images)
        loss, loss_cache = F.cross_entropy_forward(logits, labels)
        plain.backward(F.cross_entropy_backward(1.0, loss_cache), cache)
    np.testing.assert_allclose(browser.run("[...app.engine.get(app.program.named.logits)]"), logits[0], rtol=1e-9)
    np.testing.assert_allclose(browser.run("app.engine.get(app.program.named.loss)[0]"), loss, rtol=1e-9)
    for path, p in plain.named_parameters():
        found = browser.run(f"[...app.engine.get(app.program.parameters.find(r => r[0] === {path!r})[2])]")
        np.testing.assert_allclose(found, p.grad.ravel(), rtol=1e-9, atol=1e-11, err_msg=path)
    assert browser.run("!!$('changed')")
    browser.run("resetAll()")
    np.testing.assert_array_equal(browser.run("[...app.engine.get(app.program.named.logits)]"), browser.run("[...numpyvit.read(app.stepOf.get(app.program.named.logits).id)]"))
    np.testing.assert_allclose(browser.run("[...app.engine.get(app.program.named.logits)]"), recordings[name].tape.value(recordings[name].named["logits"])[0], rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_head_that_is_off(name, browser, pages):
    """Its output is zero, its gradients are, and the slope of a weight behind it is still the slope of the loss."""
    browser.open(pages[name])
    browser.run("switchHead(attentionBlocks().at(-1), 0)")
    slope, grad = browser.run("""(() => {
      const row = app.program.parameters.find(r => /attn\\.proj\\.weight|attn\\.proj_k|attn\\.qkv\\.weight/.test(r[0])), id = app.stepOf.get(row[1]).id;
      const at = h => (numpyvit.lossWith(id, 4, h) - numpyvit.lossWith(id, 4, -h)) / (2 * h);
      return [(4 * at(5e-4) - at(1e-3)) / 3, app.engine.get(row[2])[4]]; })()""")
    assert math.isclose(slope, grad, rel_tol=1e-6, abs_tol=1e-10)
    zero = browser.run("""(() => { const module = attentionBlocks().at(-1).module, s = app.steps.find(s => s.module === module && s.op === 'attention_backward' && s.name === 'dv');
      const shape = app.shape(s), n = shape[2] * shape[3]; return Math.max(...app.data(s).slice(0, n).map(Math.abs)); })()""")
    assert zero == 0


@pytest.mark.parametrize("family", ["vit", "swin", "cvt"])
def test_a_page_of_a_run(family, browser, tmp_path, capsys):
    """numpyvit explore RUN IMAGE, with the step that the run's optimiser would take; a class that is none is one line."""
    from numpyvit.cli import main as cli
    from tiny import FAMILIES, image_folder
    images, run = image_folder(tmp_path / "images"), tmp_path / "run"
    fields = [f"--set={k}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in FAMILIES[family].items()]
    assert cli.main(["train", "--data", f"folder:{images}", "--out", str(run), "--batch-size", "16", "--val", "6", "--steps", "2",
                     "--model", family, *fields]) == 0
    image, out = str(next(images.rglob("*.png"))), tmp_path / "explorer.html"
    assert cli.main(["explore", str(run), image, "--label", "ring", "-o", str(out)]) == 0
    assert "MB" in capsys.readouterr().out
    check = browser.open(out)
    assert check["failed"] == [] and check["worst"] < 1e-9
    assert browser.run("app.program.about.classes[app.program.about.label]") == "ring"
    assert browser.run("app.program.parameters.every(r => r[3] >= 0 && r[4].length)")
    assert cli.main(["explore", str(run), image, "--label", "cow", "-o", str(out)]) == 2
    err = capsys.readouterr().err
    assert "expected one of the classes" in err and err.count("\n") == 1


@pytest.mark.skipif(not os.environ.get("NUMPYVIT_BUDGETS"), reason="times mean something on a quiet machine only: set NUMPYVIT_BUDGETS=1")
@pytest.mark.parametrize("name", ["vit_nano_patch4_32", "swin_nano_patch4_window4_32", "cvt_nano_32"])
def test_budgets(name, tmp_path, rng=np.random.default_rng(0)):
    """Ready below 2 s, a step below 50 ms, a what-if below 1 s, the file below 10 MB."""
    model, path = numpyvit.create_model(name, seed=0), tmp_path / "p.html"
    path.write_text(explore(model, rng.integers(0, 256, (3, 32, 32), dtype=np.uint8), range(10), MEAN, STD))
    with Browser() as browser:
        browser.open(path)
        ready = browser.run("performance.now()")
        step = browser.run("""(() => { const times = app.order.filter((_, k) => k % 20 === 0).map(n => { const t = performance.now(); app.select(n, 0);
                               document.body.offsetHeight; return performance.now() - t; }).sort((a, b) => a - b); return times[times.length >> 1]; })()""")
        change = browser.run("(async () => { const t = performance.now(); app.ownLeaf(app.program.named.pixels)[5] = 9; "
                             "await app.edited([app.program.named.pixels]); return performance.now() - t; })()")
    print(f"{name}: {path.stat().st_size / 1e6:.1f} MB, ready {ready:.0f} ms, step {step:.0f} ms, what-if {change:.0f} ms")
    assert path.stat().st_size < 10e6 and ready < 2000 and step < 50 and change < 1000
