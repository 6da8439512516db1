"""Competitors take turns: A B C A B C …, each alive in its own process, one running at a time."""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from .machine import machine

BENCH = Path(__file__).parent
PAUSE = 0.3                                          # seconds before a turn: OpenMP threads of the last one stop spinning
DISTURBED = 0.03                                     # a turn in which others took more of the machine is no measurement


class Failed(Exception):
    """A competitor could not be built or died; the message says why."""


class Competitor:
    """A worker process. spec: see worker.py.   env: additions to the environment."""

    def __init__(self, spec, env=None):
        self.rounds, self.disturbed, self.peak_mb = [], [], 0.0
        inherited = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
        self.errors = tempfile.TemporaryFile("w+")
        start = time.perf_counter()
        self.process = subprocess.Popen([sys.executable, str(BENCH), "worker", json.dumps(spec)], text=True, stderr=self.errors,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=inherited | (env or {}))
        try:
            ready = self.answer()
        except BaseException:
            self.close()
            raise
        self.start, self.build, self.first_step = time.perf_counter() - start, ready["ready"], ready["first_step"]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.process.stdin.close()                   # its loop over the lines ends
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def run(self, steps):
        """A turn: one step to get warm, then `steps` that count. disturbed: the share of the machine that others took meanwhile."""
        before, start = others_seconds(self.process.pid), time.perf_counter()
        print(steps + 1, file=self.process.stdin, flush=True)
        answer = self.answer()
        wall = time.perf_counter() - start
        self.disturbed.append(max(0.0, others_seconds(self.process.pid) - before) / (wall * os.cpu_count()))
        self.rounds.append(statistics.median(answer["seconds"][1:]))
        self.peak_mb = answer["peak_mb"]

    def answer(self):
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"ended with status {self.process.wait()}; {self.last_words()}"}
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def last_words(self):
        self.errors.seek(0)
        return (self.errors.read().strip().splitlines() or ["nothing on standard error"])[-1]


def race(specs, rounds, steps):
    """{name: spec} → {name: Competitor, its process ended} and {name: why it is missing}."""
    there, missing = {}, {}
    with ExitStack() as stack:
        for name, spec in specs.items():
            try:
                there[name] = stack.enter_context(Competitor(spec))
            except Failed as e:
                missing[name] = str(e)
        for _ in range(rounds):
            for name, competitor in list(there.items()):
                time.sleep(PAUSE)
                try:
                    competitor.run(steps)
                except Failed as e:
                    missing[name] = str(e)
                    del there[name]
    return there, missing


def others_seconds(*workers):
    """CPU seconds that all but this process and these ids have had since the machine started; 0 where it cannot be read."""
    try:
        with open("/proc/stat") as stat:
            user, nice, system, idle, iowait, *rest = (int(ticks) for ticks in stat.readline().split()[1:9])
        total = user + nice + system + sum(rest)
        for pid in workers:
            with open(f"/proc/{pid}/stat") as stat:
                total -= sum(int(ticks) for ticks in stat.read().rsplit(")", 1)[1].split()[11:13])
    except OSError:
        return 0.0
    return total / os.sysconf("SC_CLK_TCK") - time.process_time()


def disturbance(share, name="this run"):
    """[a warning] if others took this share of the machine, else [].

    Threads that wait for each other at every operation, as torch's do, lose far more than the share itself: ratios of a
    disturbed run flatter whoever needs fewer such meetings.
    """
    if share <= DISTURBED:
        return []
    return [f"{name} IS NOT A MEASUREMENT: other processes took {share:.0%} of the machine, above the {DISTURBED:.0%} that count as quiet. "
            "Repeat when nothing else runs."]


def largest_disturbance(competitors):
    return max((share for c in competitors for share in c.disturbed), default=0.0)


def spread(values):
    """{"median", "low", "high"}"""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def write_json(path, **content):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"measured": time.strftime("%Y-%m-%d"), "machine": machine(), **content}, indent=1) + "\n")
