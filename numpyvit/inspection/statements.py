"""What a line of the package reads and writes, from its source."""
import ast
import functools

EMPTY = ("empty", "zeros", "empty_like", "zeros_like")


@functools.cache
def statements(path):
    """{line: the innermost statement of the file that spans it}"""
    with open(path, encoding="utf-8") as file:
        tree, found = ast.parse(file.read()), {}
    simple = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Expr)
    for node in ast.walk(tree):
        if isinstance(node, simple):
            found |= dict.fromkeys(range(node.lineno, node.end_lineno + 1), node)
    return found


@functools.cache
def statement(path, line):
    """Of the statement at a line: the names it reads, the dotted target of an augmented assignment, whether it makes
    an empty or zero array, which the lines after it fill."""
    node = statements(path).get(line)
    if node is None:
        return (), (), False
    reads = tuple(dict.fromkeys(n.id for n in ast.walk(node) if isinstance(n, ast.Name)
                                and (isinstance(n.ctx, ast.Load) or isinstance(node, ast.AugAssign))))
    target = ast.unparse(node.target).split(".") if isinstance(node, ast.AugAssign) else ()
    fresh = any(isinstance(n, ast.Attribute) and n.attr in EMPTY for n in ast.walk(node))
    return reads, tuple(target), fresh
