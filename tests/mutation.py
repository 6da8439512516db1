"""Mutants of a file by rule: its syntax tree is walked, and each rule rewrites a node of it as one defect."""
import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
METHODS = re.compile("forward|backward|embed|classify|project|merge_heads|split_class")      # of layers and models


@dataclass
class Mutant:
    path: str                    # relative to the repository
    function: str
    line: int
    rule: str
    before: str
    after: str
    source: bytes

    def __str__(self):
        return f"{self.path}:{self.line} {self.function}: {self.rule}: {short(self.before)}  →  {short(self.after)}"

    @property
    def key(self):
        """What EQUIVALENT names: without the line, which moves."""
        return f"{Path(self.path).parent.name}/{Path(self.path).stem}.{self.function}: {self.before} → {self.after}"


def short(text):
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "…"


def rewrites(node, text):
    """(rule, what stands there in its place) of an AST node; text(child) is the source of a child."""
    if isinstance(node, ast.BinOp):
        left, right = f"({text(node.left)})", f"({text(node.right)})"
        if isinstance(node.op, (ast.Add, ast.Sub)):
            other = "-" if isinstance(node.op, ast.Add) else "+"
            yield "sign", f"({left} {other} {right})"
            yield "dropped term", right if isinstance(node.op, ast.Add) else f"(-{right})"
            yield "dropped term", left
        elif isinstance(node.op, (ast.Mult, ast.Div)):
            yield "dropped factor", left
            if isinstance(node.op, ast.Mult):
                yield "dropped factor", right
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield "sign", f"({text(node.operand)})"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("sum", "mean"):
        other = {"sum": "mean", "mean": "sum"}[node.func.attr]
        arguments = text(node)[len(text(node.func)):]
        yield f"{other} for {node.func.attr}", f"({text(node.func.value)}).{other}{arguments}"
        for keyword in node.keywords:
            if keyword.arg == "axis":
                yield "wrong axis", f"{text(node.func)}{arguments.replace(text(keyword.value), wrong_axis(keyword.value), 1)}"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield "condition", f"({text(node.left)} {COMPARISONS[type(node.ops[0])]} {text(node.comparators[0])})"
    elif isinstance(node, (ast.If, ast.IfExp)):
        yield "condition", None                                              # of the test, see below
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) > 1:
        parts = [text(e) for e in node.value.elts]
        for i in range(len(parts) - 1):
            yield "swapped results", f"return ({', '.join([*parts[:i], parts[i + 1], parts[i], *parts[i + 2:]])})"
    elif isinstance(node, ast.AugAssign):
        target, value = text(node.target), text(node.value)
        if isinstance(node.op, (ast.Add, ast.Sub)):
            in_place = "grad" in target and not isinstance(node.target, ast.Subscript)
            yield "overwrites", f"{target}{'[...]' if in_place else ''} = ({value})"
            yield "sign", f"{target} {'-' if isinstance(node.op, ast.Add) else '+'}= ({value})"
        yield "left out", "pass"
    elif isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
        yield "left out", "pass"
    if isinstance(node, ast.Call) and text(node.func) == "F.residual":
        yield "residual lost", text(node.args[0])
        yield "branch lost", text(node.args[1])


COMPARISONS = {ast.Gt: "<", ast.GtE: "<", ast.Lt: ">", ast.LtE: ">", ast.Eq: "!=", ast.NotEq: "=="}


def wrong_axis(axis):
    if isinstance(axis, ast.Tuple):
        return ast.unparse(ast.Tuple(axis.elts[1:])) if len(axis.elts) > 1 else "()"
    return "-1" if ast.unparse(axis) == "0" else "0"


def constants(node, text):
    """A number that is computed with, doubled. (Indices, axes and shapes are not: they fail at once.)"""
    if isinstance(node, ast.BinOp):
        for side in (node.left, node.right):
            if isinstance(side, ast.Constant) and isinstance(side.value, (int, float)) and not isinstance(side.value, bool):
                yield side, "constant", repr(side.value * 2 if side.value else 1)


def mutants_of(path):
    """Every mutant of a file, by rule."""
    source = (ROOT / path).read_bytes()
    tree = ast.parse(source)
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def span(node):
        return lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset

    def text(node):
        start, end = span(node)
        return source[start:end].decode()

    in_package = Path(path).parent.name in ("ops", "kernels")
    for function in functions_of(tree):
        if not in_package and not METHODS.search(function.name):
            continue
        for node in computing(function):
            found = [(node.test if after is None else node, rule, f"(not ({text(node.test)}))" if after is None else after)
                     for rule, after in rewrites(node, text)]
            for place, rule, after in [*found, *constants(node, text)]:
                start, end = span(place)
                mutated = source[:start] + after.encode() + source[end:]
                if mutated != source:
                    yield Mutant(path, function.name, place.lineno, rule, text(place), after, mutated)


def functions_of(tree):
    """Functions and methods, outermost only."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from (n for n in node.body if isinstance(n, ast.FunctionDef))


def computing(function):
    """The nodes of a function's body that compute: no docstring, no raise and what leads to it, no annotation, no subscript."""
    stack = list(reversed(function.body))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Raise) or (isinstance(node, ast.If) and any(isinstance(n, ast.Raise) for n in node.body)):
            continue
        yield node
        children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.JoinedStr)]
        if isinstance(node, ast.Subscript):
            children = [node.value]
        stack.extend(reversed(children))
