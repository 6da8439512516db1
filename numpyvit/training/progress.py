"""What a run says while it works: a live line where standard output is a terminal, plain lines where it is none."""
import importlib.util
import math
import sys
import threading
import time
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

LIVE_SECONDS, PLAIN_SECONDS = 0.25, 10.0                                     # between two updates
COLUMNS = ("epoch", "step", "loss", "train acc", "val acc", "reference", "test acc", "lr", "images/s", "GFLOP/s",
           "left")


class Progress:
    """Prints to one rich console. A console that has gone away (a closed terminal, a full pipe) is given up silently:
    the run is in its folder. Context manager."""

    def __init__(self, console=None, quiet=False):
        self.console = Console(quiet=True) if quiet else console or Console(highlight=False)
        self.live, self.row, self.shown_at, self.count = None, {}, 0.0, 0
        self.said_compiling = False
        self.loss = self.accuracy = self.rate = self.work_rate = math.nan

    def start(self, total_steps, steps_per_epoch, batch_size, work):
        """work(n): FLOPs of the run's first n steps, whose images need not be of one size; 0 where they are unknown."""
        self.total_steps, self.steps_per_epoch, self.batch_size = total_steps, steps_per_epoch, batch_size
        self.work = work if work(total_steps) else lambda steps: steps
        self.counts_flops = bool(work(total_steps))

    def __enter__(self):
        if self.console.is_terminal or in_notebook(self.console):
            self.live = Live(console=self.console, auto_refresh=False, transient=False)
            self.quietly(self.live.start)
        self.shown_at = time.monotonic()
        return self

    def __exit__(self, *exc):
        self.end()

    def end(self):
        """Give the terminal back, with the last state of the line on it."""
        if self.live:
            self.quietly(self.live.stop)
            self.live = None

    def say(self, text):
        """One line that stays."""
        self.quietly(self.console.print, text, markup=False, soft_wrap=True)

    @contextmanager
    def compiling(self):
        """Say so, once, as soon as the block compiles for a second: the first time on a machine, Numba does."""
        done = threading.Event()

        def look():
            while not (done.wait(1.0) or self.said_compiling):
                modules = [module for name, module in list(sys.modules.items()) if name.startswith("numpyvit.")]
                functions = [value for module in modules for value in list(vars(module).values())]
                if any(getattr(getattr(function, "stats", None), "cache_misses", None) for function in functions):
                    self.said_compiling = True
                    self.say("Compiling the kernels, once (up to half a minute) …")

        threading.Thread(target=look, daemon=True).start()
        try:
            yield
        finally:
            done.set()

    def step(self, step, loss, accuracy, lr):
        """After a step: change the running means, and show them now and then. Costs microseconds else."""
        weight = max(0.02, 1 / (step + 1)) if math.isfinite(self.loss) else 1.0
        self.loss = loss if weight == 1 else self.loss + weight * (loss - self.loss)
        self.accuracy = accuracy if weight == 1 else self.accuracy + weight * (accuracy - self.accuracy)
        self.count += 1
        now = time.monotonic()
        if now - self.shown_at < (LIVE_SECONDS if self.live else PLAIN_SECONDS) and step < self.total_steps:
            return
        seconds = max(now - self.shown_at, 1e-9)
        rate = self.count * self.batch_size / seconds
        work_rate = (self.work(step) - self.work(step - self.count)) / seconds
        if self.live and math.isfinite(self.rate):
            rate, work_rate = self.rate + 0.1 * (rate - self.rate), self.work_rate + 0.1 * (work_rate - self.work_rate)
        self.rate, self.work_rate, self.shown_at, self.count = rate, work_rate, now, 0
        self.row |= {"epoch": f"{step / self.steps_per_epoch:.2f}/{self.total_steps / self.steps_per_epoch:.1f}",
                     "step": f"{step}/{self.total_steps}", "loss": f"{self.loss:.3f}",
                     "train acc": f"{self.accuracy:.1%}", "lr": f"{lr:.2e}", "images/s": f"{self.rate:,.0f}"}
        if self.counts_flops:
            self.row["GFLOP/s"] = f"{self.work_rate / 1e9:,.0f}"
        self.row["left"] = clock((self.work(self.total_steps) - self.work(step)) / self.work_rate)
        self.show()

    def paused(self):
        """Something else than training took time (an evaluation, a checkpoint): it does not count as slow training."""
        self.shown_at, self.count = time.monotonic(), 0

    def evaluated(self, what, accuracy):
        self.row |= {what: f"{accuracy:.2%}"}
        if self.live:
            self.show()

    def show(self):
        row = {name: self.row[name] for name in COLUMNS if name in self.row}
        if self.live:
            table = Table(box=None, pad_edge=False)
            for name in row:
                table.add_column(name, justify="right", style="bold" if name.endswith("acc") else "")
            table.add_row(*row.values())
            self.quietly(self.live.update, table, refresh=True)
        else:
            self.say("  ".join(f"{name} {value}" for name, value in row.items()))

    def quietly(self, fn, *args, **kwargs):
        try:
            fn(*args, **kwargs)
        except (OSError, ValueError, SystemExit):                            # rich ends the process on a broken pipe
            pass


def in_notebook(console):
    """Whether the console is a notebook that can show a line that changes."""
    return console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None


def clock(seconds):
    """75 → "1:15", 3700 → "1:01:40" """
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
