"""One HTML file of a recording: scripts, program and arrays, and a policy that forbids every request."""
import base64
import hashlib
from importlib import resources

from .pack import arrays_of, packed, program_of, to_json

SCRIPTS = ("arrays.js", "primitives.js", "engine.js", "derive.js", "load.js", "app.js", "dom.js", "axes.js",
           "geometry.js", "maps.js", "strip.js", "twin.js", "source.js", "bigmap.js", "step.js", "cell.js",
           "overlay.js", "photo.js", "classes.js", "whatif.js", "switches.js", "tour.js", "guide.js",
           "start.js")
POLICY = ("default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
          "form-action 'none'")


def part(name):
    """The text of a file of page/."""
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")


def document(recording, about):
    """→ the text of the HTML file."""
    rows, blob = arrays_of(recording)
    program = program_of(recording, about)
    program["arrays"] = rows
    script = "\n".join(part(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = part("page.html")
    fields = {"POLICY": POLICY.format(hashes=f"'sha256-{digest}'"), "STYLE": part("style.css") + part("panels.css"),
              "PROGRAM": packed(to_json(program)), "ARRAYS": packed(blob), "SCRIPT": script}
    for name, text in fields.items():
        before, marker, after = page.partition(f"<!--{name}-->" if name != "POLICY" else "POLICY")
        assert marker, f"page.html has no place for {name}"
        page = before + text + after
    return page
