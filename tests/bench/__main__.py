import importlib
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(TESTS), str(TESTS.parent)]       # bench and the modules beside it; numpyvit, installed or not

TOOLS = ("train_step", "ops", "threads", "run_cost", "scaling", "gains", "cold_start", "profile", "ranks", "worker")

if __name__ == "__main__":
    named = len(sys.argv) > 1 and sys.argv[1] in TOOLS
    tool, arguments = (sys.argv[1], sys.argv[2:]) if named else ("train_step", sys.argv[1:])
    if tool != "worker" and not {"-h", "--help"} & set(arguments):
        print(importlib.import_module("bench.machine").in_one_line(), flush=True)
    try:
        sys.exit(importlib.import_module(f"bench.{tool}").main(arguments))
    except KeyboardInterrupt:
        sys.exit(130)
