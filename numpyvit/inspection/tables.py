"""Tables on the screen: traces, comparisons, and what all tables share."""
from ..checks import fail
from .compare import check_differences, difference
from .tensors import check_trace, shown_kind


def print_trace(trace, console=None):
    """A table of the tensors: module, op, name, shape, dtype, file:line, largest magnitude.

    trace: a Trace or a list of its Tensors   console: a rich.console.Console, standard output unless given
    Raises UserError for anything else.
    """
    table = new_table("module", "op", "name", "shape", "dtype", "computed at", "max |x|")
    for t in check_trace("print_trace", trace):
        magnitude = difference(t, t).magnitude
        op = t.key.op + (f"[{t.key.call}]" if t.key.call else "")
        table.add_row(t.key.module, op, t.key.name + "′" * t.key.binding, "×".join(map(str, t.shape)) or "()",
                      str(t.array.dtype), f"{t.file}:{t.line}", f"{magnitude:.4g}")
    show(table, console)


def print_comparison(rows, console=None):
    """A table of what compare found, without what only one of the two has; that is counted.

    rows: a Comparison or a list of its rows   console: as for print_trace   Raises UserError for anything else.
    """
    both = [row for row in check_differences("print_comparison", rows) if not row.note.startswith("only")]
    table = new_table("tensor", "shape", "max |a − b|", "max |a|")
    for row in both:
        shape = row.note if row.shape is None else "×".join(map(str, row.shape)) or "()"
        numbers = ("-", "-") if row.difference is None else (f"{row.difference:.2e}", f"{row.magnitude:.4g}")
        table.add_row(str(row.key), shape, *numbers)
    if len(both) < len(rows):
        table.caption = f"{len(both)} tensors; {len(rows) - len(both)} more are in one of the two only"
    show(table, console)


def new_table(*columns):
    """An empty table, numbers to the right."""
    from rich import box
    from rich.table import Table
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column.startswith("max") else "left", no_wrap=True)
    return table


def show(table, console=None):
    """Print a table; where the output is no terminal, as wide as it needs."""
    from rich.console import Console
    if console is not None and not isinstance(console, Console):
        fail("console", "a rich.console.Console", f"{shown_kind(console)}; Console(file=…) prints into a file")
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print(table)
