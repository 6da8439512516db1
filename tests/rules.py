"""The house rules as functions of source text: each takes {path: text} and returns {what violates the rule: why}.

Paths are relative to numpyvit/. test_rules.py runs every rule on the package, and on one broken example each.
Violations that are still there are listed in known_violations.py, a list that can only shrink.
"""
import ast
import functools
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "numpyvit"

# Imports only go down this list. A line may hold several names, which may import each other.
ORDER = ("cli", "explorer", "training", "runs", "inspection", "gradcheck differences", "cases", "weights", "models", "data",
         "files", "layers module threads", "flat", "functional", "kernels", "ops", "checks", "errors")
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names.split()}
LONGEST = {"ops": 150, "kernels": 200}                                       # lines a file; all others 300
NO_PAIRS = {"__init__", "erf", "positions", "random_bits", "residual", "optim", "muon", "augment"}  # files of ops/ with functions and tables, but no backward
FOREIGN = ("torch", "scipy", "pickle", "dill", "joblib", "autograd", "jax")
OPTIONAL = ("matplotlib", "PIL", "mpi4py")
FAMILIES = {"ViT", "Swin", "CvT"}


@functools.cache
def parse(text):
    """ast.parse, once for all rules."""
    return ast.parse(text)


def trees(house):
    """{path: syntax tree} of the Python files."""
    return {path: parse(text) for path, text in house.items() if path.endswith(".py")}


def unit(path):
    """The name in ORDER that a path belongs to: its folder, or the file itself."""
    return path.partition("/")[0].removesuffix(".py")


def functions(tree):
    """{name: node} of the functions at the top level."""
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def imported(path, tree):
    """(unit of the package, or a package from elsewhere after a colon; the import's source; its line), functions' imports too."""
    depth = path.count("/")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            inside = path.split("/")[:depth + 1 - node.level]
            whole = [*inside, *(node.module.split(".") if node.module else [])]
            names = [["numpyvit", *(whole or [alias.name])] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module.split(".")] if "." in node.module else [[node.module, alias.name] for alias in node.names]
        else:
            continue
        for name in names:
            target = name[1] if name[0] == "numpyvit" and len(name) > 1 else ":" + name[0]
            yield target, ast.unparse(node), node


def imports_go_down(house):
    """A file imports only from its own place in ORDER and from those below it, inside functions too."""
    found = {}
    for path, tree in trees(house).items():
        here = LEVEL.get(unit(path))
        if unit(path) in ("__init__", "__main__"):
            continue
        if here is None:
            found[path] = f"{unit(path)} has no place in ORDER of tests/rules.py"
            continue
        for target, source, _ in imported(path, tree):
            if target == ":numpyvit" or (not target.startswith(":") and LEVEL.get(target, -1) < here and target != "__version__"):
                found[f"{path} imports {target.strip(':')}"] = f"{source}: imports only go down the list {' > '.join(ORDER)}"
    return found


def kernels_are_bound(house):
    """Every pair of kernels/ is imported by functional.py: a pair that nobody binds is tested by nobody."""
    bound = {f"{node.module}.{alias.name}" for node in ast.walk(parse(house["functional.py"]))
             if isinstance(node, ast.ImportFrom) and node.module for alias in node.names}
    found = {}
    for path, tree in trees(house).items():
        names = functions(tree) if unit(path) == "kernels" else {}
        for stem in [name.removesuffix("_forward") for name in names if name.endswith("_forward") and pair(name)[1] in names]:
            for name in pair(stem + "_forward"):
                if f"{path.removesuffix('.py').replace('/', '.')}.{name}" not in bound:
                    found[f"{path}: {name}"] = "functional.py does not import it from here"
    return found


def pair(forward):
    """NAME_forward → (NAME_forward, NAME_backward)"""
    return forward, forward.removesuffix("_forward") + "_backward"


def files_are_short(house):
    """At most 300 lines a file, 200 in kernels/, 150 in ops/."""
    return {path: f"{text.count(chr(10))} lines, a reader holds {LONGEST.get(unit(path), 300)}" for path, text in house.items()
            if text.count("\n") > LONGEST.get(unit(path), 300)}


def lines_are_short(house):
    """No line above 120 columns."""
    found = {}
    for path, text in house.items():
        long = [str(i) for i, line in enumerate(text.splitlines(), 1) if len(line) > 120]
        if long:
            found[path] = f"above 120 columns: line {', '.join(long)}"
    return found


def public_things_have_docstrings(house):
    """Every function and class at the top level of a file says what it does. A kernel's docstring is its definition's."""
    found = {}
    for path, tree in trees(house).items():
        definitions = functions(parse(house.get(path.replace("kernels/", "ops/"), ""))) if unit(path) == "kernels" else {}
        bare = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
                and not node.name.startswith("_") and node.name not in definitions and not ast.get_docstring(node)]
        if bare:
            found[path] = f"no docstring: {', '.join(bare)}"
    return found


def ops(house):
    """(path, tree) of the files of ops/ that define pairs."""
    return [(path, tree) for path, tree in trees(house).items()
            if unit(path) == "ops" and path.split("/")[-1].removesuffix(".py") not in NO_PAIRS]


def forward_stands_beside_backward(house):
    """A file of ops/ defines NAME_forward and then NAME_backward, and nothing with such a name between them."""
    found = {}
    for path, tree in ops(house):
        names = [name for name in functions(tree) if name.endswith(("_forward", "_backward"))]
        stems = dict.fromkeys(name.rsplit("_", 1)[0] for name in names)
        if not names or names != [f"{stem}_{way}" for stem in stems for way in ("forward", "backward")]:
            found[path] = f"expected pairs NAME_forward, NAME_backward, got {names}; a file without pairs belongs into NO_PAIRS"
    return found


def op_docstrings_are_shapes_and_formulas(house):
    """forward's docstring has a line of shapes with an arrow, backward's the formulas of the gradients."""
    found = {}
    for path, tree in ops(house):
        for name, node in functions(tree).items():
            text = ast.get_docstring(node) or ""
            if name.endswith("_forward") and "→" not in text:
                found[f"{path}: {name}"] = "no line of shapes, inputs → output"
            if name.endswith("_backward") and not re.search(r"\bd\w+.*=", text):
                found[f"{path}: {name}"] = "no formula of a gradient, dNAME = …"
    return found


def ops_are_numpy_only(house):
    """ops/ imports NumPy, math and its own files, nothing else."""
    return {f"{path}: {source}": "ops/ is NumPy only" for path, tree in trees(house).items() if unit(path) == "ops"
            for target, source, _ in imported(path, tree) if target not in ("ops", ":numpy", ":math", ":collections", ":typing")}


def kernels_have_the_signatures_of_definitions(house):
    """kernels/FILE.NAME takes what ops/FILE.NAME takes, by the same names and with the same defaults."""
    parsed, found = trees(house), {}
    for path, tree in parsed.items():
        definition = functions(parsed.get(path.replace("kernels/", "ops/"), ast.parse(""))) if unit(path) == "kernels" else {}
        for name, node in functions(tree).items():
            if name in definition and ast.unparse(node.args) != ast.unparse(definition[name].args):
                found[f"{path}: {name}"] = f"({ast.unparse(node.args)}), the definition has ({ast.unparse(definition[name].args)})"
    return found


def no_foreign_packages(house):
    """No torch, SciPy or pickle; optional packages are imported where they are used, inside functions."""
    found = {}
    for path, tree in trees(house).items():
        for target, source, node in imported(path, tree):
            if target.strip(":") in FOREIGN or (target.strip(":") in OPTIONAL and node in tree.body):
                found[f"{path}: {source}"] = "a package that numpyvit does without" if target.strip(":") in FOREIGN else "import it lazily"
    return found


def keywords(house):
    """(path, name, source of the value) of every keyword argument."""
    return [(path, node.arg, ast.unparse(node.value)) for path, tree in trees(house).items() for node in ast.walk(tree)
            if isinstance(node, ast.keyword)]


def no_pickles_are_loaded(house):
    """allow_pickle is False wherever it is given."""
    return {path: f"{name}={value}" for path, name, value in keywords(house) if name == "allow_pickle" and value != "False"}


def kernels_are_serial_and_exact(house):
    """Threads are the lanes' business, and NaN and infinity have to be seen: no parallel=True, no fastmath that drops them."""
    found = {path: f"{name}={value}" for path, name, value in keywords(house)
             if unit(path) == "kernels" and (name, value) in (("parallel", "True"), ("fastmath", "True"))}
    for path, tree in trees(house).items():
        if unit(path) == "kernels":
            found |= {path: repr(node.value) for node in ast.walk(tree)
                      if isinstance(node, ast.Constant) and node.value in ("nnan", "ninf", "fast")}
    return found


def nothing_is_kept_between_calls(house):
    """No forward or backward, and nothing like them, assigns to self.NAME: layers own parameters, never activations."""
    found = {}
    for path, tree in trees(house).items():
        if unit(path) not in ("layers", "module", "models"):
            continue
        for method in ast.walk(tree):
            if isinstance(method, ast.FunctionDef) and re.search("forward|backward|embed|classify", method.name):
                for node in ast.walk(method):
                    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                    if any(isinstance(t, ast.Attribute) and ast.unparse(t.value) == "self" for t in targets):
                        found[f"{path}: {method.name}"] = ast.unparse(node)
    return found


def no_clock_that_jumps(house):
    """No time.time, no datetime.now: whoever sets the clock moves them. Durations come from time.monotonic."""
    return {f"{path}: {ast.unparse(node)}": "use time.monotonic" for path, tree in trees(house).items() for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and (node.attr in ("now", "utcnow", "today") or ast.unparse(node) == "time.time")}


def one_house_style(house):
    """Relative imports, no lines drawn in comments, no names that begin with an underscore at the top level of a file."""
    found = {}
    for path, tree in trees(house).items():
        names = [getattr(node, "name", None) or ast.unparse(node.targets[0]) for node in tree.body
                 if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign))]
        private = [name for name in names if re.match("_[^_]", name)] if path != "__init__.py" else []
        absolute = [source for target, source, node in imported(path, tree)
                    if isinstance(node, ast.Import) or not node.level if target == ":numpyvit" or not target.startswith(":")]
        if private or absolute or "──" in house[path]:
            found[path] = ", ".join([*private, *absolute, *["──"] * ("──" in house[path])])
    return found


def families_are_asked_in_their_own_files(house):
    """ViT, Swin and CvT are named in models/ only: nobody else asks which family a model is of."""
    return {path: f"line {node.lineno} names {node.id}" for path, tree in trees(house).items() if unit(path) != "models"
            for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in FAMILIES}


RULES = (imports_go_down, kernels_are_bound, files_are_short, lines_are_short, public_things_have_docstrings,
         forward_stands_beside_backward, op_docstrings_are_shapes_and_formulas, ops_are_numpy_only,
         kernels_have_the_signatures_of_definitions, no_foreign_packages, no_pickles_are_loaded, kernels_are_serial_and_exact,
         nothing_is_kept_between_calls, no_clock_that_jumps, one_house_style, families_are_asked_in_their_own_files)


def read_house(package=PACKAGE):
    """{path: text} of the package."""
    return {path.relative_to(package).as_posix(): path.read_text() for path in sorted(package.rglob("*"))
            if path.suffix in (".py", ".js", ".css", ".html")}


def main():
    """Print every violation, and remove from known_violations.py what is no longer one."""
    house, listed = read_house(), Path(__file__).with_name("known_violations.py")
    kept, rule = [], {}
    for line in listed.read_text().splitlines(keepends=True):
        name = re.fullmatch(r'    "(\w+)": \{\n', line)
        if name:
            rule = next(rule for rule in RULES if rule.__name__ == name[1])(house)
        what = re.fullmatch(r'        "(.*)",\n', line)
        if line == "    },\n" and kept[-1].endswith(": {\n"):               # a rule that nothing violates any more
            kept.pop()
        elif not what or what[1] in rule:
            kept.append(line)
    listed.write_text("".join(kept))
    for rule in RULES:
        print(*(f"{rule.__name__}: {what}: {why}" for what, why in rule(house).items()), sep="\n", end="\n" if rule(house) else "")


if __name__ == "__main__":
    main()
