"""One thread a test process, two hypothesis profiles, and the table of worst errors."""
import os

for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA"):               # before NumPy is imported
    os.environ[f"{library}_NUM_THREADS"] = "1"

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

common = dict(deadline=None, suppress_health_check=list(hypothesis.HealthCheck), print_blob=True, database=None, derandomize=True)
hypothesis.settings.register_profile("default", max_examples=100, **common)
hypothesis.settings.register_profile("thorough", max_examples=1000, **common)
hypothesis.settings.register_profile("random", max_examples=1000, **common | {"derandomize": False})   # other draws every time
hypothesis.settings.register_profile("mutants", max_examples=100, phases=[hypothesis.Phase.generate], **common)
hypothesis.settings.load_profile("default")                                  # --hypothesis-profile=thorough overrides


class Figures:
    """What a property test saw over all its examples."""

    def __init__(self):
        self.examples, self.worst = 0, {}

    def add(self, **errors):
        self.examples += 1
        for name, error in errors.items():
            self.worst[name] = max(self.worst.get(name, 0.0), float(error))


@pytest.fixture
def figures(request):
    """figures.add(dx=error, …) once an example; the summary then shows examples and worst errors (make test-thorough)."""
    figures = Figures()
    yield figures
    request.node.user_properties.append(("figures", (figures.examples, figures.worst)))


@pytest.fixture(scope="module")
def browser():
    """Chromium, for the tests of the explorer's page: nothing on its console at the end, and no request to the network."""
    from chromium import Browser
    with Browser(1400, 1000) as browser:
        yield browser
        assert browser.console == [] and not [url for url in browser.requests if not url.startswith("file:")]


def pytest_terminal_summary(terminalreporter):
    rows = [(report.nodeid, *value) for reports in terminalreporter.stats.values() for report in reports
            for name, value in getattr(report, "user_properties", ()) if name == "figures" and report.when == "teardown"]
    if not rows or not os.environ.get("NUMPYVIT_THOROUGH"):
        return
    table = {}
    for nodeid, examples, worst in sorted(rows):                             # one row a test, or one an op
        row = table.setdefault(nodeid if len(worst) > 1 else nodeid.partition("[")[0], Figures())
        row.examples += examples
        row.worst |= {name: max(error, row.worst.get(name, 0.0)) for name, error in worst.items()}
    terminalreporter.section(f"worst errors, {sum(row.examples for row in table.values()):,} examples in all")
    for nodeid, row in table.items():
        errors = "  ".join(f"{name} {error:.1e}" for name, error in row.worst.items())
        terminalreporter.write_line(f"{nodeid.split('/')[-1]:60} {row.examples:6,}  {errors}")
