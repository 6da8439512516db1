"""The machine that figures are measured on: processor, cores, instruction set, caches, versions."""
import importlib.metadata as metadata
import os
import platform
from pathlib import Path

import numpyvit

# The widest that the processor has, by the names in /proc/cpuinfo (flags on Intel and AMD, Features on ARM).
INSTRUCTION_SETS = (("AMX", "amx_tile"), ("AVX-512", "avx512f"), ("AVX2", "avx2"), ("AVX", "avx"), ("SSE2", "sse2"),
                    ("SVE", "sve"), ("NEON", "asimd"))


def machine():
    """What figures depend on, as a dict for the JSON files. A value that the system does not tell is left out."""
    cpu, flags = cpuinfo()
    sets = [name for name, flag in INSTRUCTION_SETS if flag in flags]
    wide = [name for name in sets if name == "AMX"] + [name for name in sets if name != "AMX"][:1]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {name: metadata.version(name) for name in ("numpy", "numba", "torch")}
    return {"cpu": cpu, "cores": cores, "instruction_set": ", ".join(wide) or "unknown", "caches": caches(),
            "numpyvit": numpyvit.__version__, "python": platform.python_version(), **versions}


def cpuinfo(path="/proc/cpuinfo"):
    """(name of the processor, set of the names of its abilities)"""
    name, flags = platform.processor() or platform.machine(), set()
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:                                  # not Linux
        return name, flags
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = value
        if key in ("flags", "Features"):
            flags = set(value.split())
            break
    return name, flags


def caches(path="/sys/devices/system/cpu/cpu0/cache"):
    """{"L1d": "32K", "L2": "1024K", …} of the first core, as the system names the sizes; {} where it does not tell."""
    sizes = {}
    for index in sorted(Path(path).glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        sizes["L" + level + {"Data": "d", "Instruction": "i"}.get(kind, "")] = size
    return sizes


def in_one_line():
    """The machine for the head of a table."""
    m = machine()
    sizes = ", ".join(f"{name} {size}" for name, size in m["caches"].items()) or "caches unknown"
    versions = ", ".join(f"{name} {m[name]}" for name in ("numpy", "numba", "torch"))
    return f"{m['cpu']}, {m['cores']} cores, {m['instruction_set']}; {sizes}; {versions}"
