"""Runs side by side: how far each one is, how good it is, and the settings in which they differ."""
import dataclasses
import os

from ..errors import UserError
from .folder import RunFolder

HEADINGS = ("run", "model", "data", "steps", "val", "test", "minutes")


def find_runs(folders):
    """Paths of the runs: each folder is a run or has runs in it. UserError where there are none."""
    found = []
    for folder in folders:
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        inside = [os.path.join(folder, name) for name in names]
        found += [path for path in (folder, *inside) if os.path.isfile(os.path.join(path, "config.json"))]
    if not found:
        raise UserError(f"{', '.join(folders)}: expected runs or folders of runs, found none")
    return found


def list_runs(paths):
    """Rows of HEADINGS, as texts, and sentences about the settings that differ and about folders that are no runs."""
    rows, recipes, sentences = [], {}, []
    for path in paths:
        run = RunFolder(path)
        try:
            config = run.read_config()
            rows.append(row_of(run, config))
            lanes = {"shards": config.lanes.shards, "micro_batch": config.lanes.micro_batch}
            recipes[path] = dataclasses.asdict(config.recipe) | lanes
        except UserError as error:
            sentences.append(str(error))
    names = next(iter(recipes.values()), {})
    different = [name for name in names if len({str(recipe[name]) for recipe in recipes.values()}) > 1]
    for name in different:
        values = ", ".join(f"{os.path.basename(os.path.normpath(path))} {recipe[name]}"
                           for path, recipe in recipes.items())
        sentences.append(f"{name}: {values}")
    return rows, sentences


def row_of(run, config):
    """The texts of one run, in the order of HEADINGS."""
    has_metrics, has_result = (os.path.isfile(run.file(name)) for name in ("metrics.jsonl", "result.json"))
    metrics = run.read_metrics() if has_metrics else []
    done = max((entry["step"] for entry in metrics if entry.get("kind") == "train"), default=0)
    val = [entry["accuracy"] for entry in metrics if entry.get("kind") == "val"]
    result = run.read_result() if has_result else {}
    test, seconds = result.get("test_accuracy"), result.get("seconds")
    steps = f"{done}/{config.plan.steps if config.plan else '?'}" + (" patience" if "ended" in result else "")
    return (run.path, config.recipe.model, config.data.name, steps,
            f"{val[-1]:.2%}" if val else "-", "-" if test is None else f"{test:.2%}",
            "-" if seconds is None else f"{seconds / 60:.1f}")
