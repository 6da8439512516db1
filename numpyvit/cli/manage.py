"""The commands about runs that are there: runs and report."""
from .options import check_data_set, positive


def add_commands(commands):
    """Add the commands runs and report."""
    p = commands.add_parser("runs", help="list and compare runs",
                            description="List runs: steps, accuracies, minutes; then the settings that differ.")
    p.add_argument("folders", metavar="FOLDER", nargs="*", default=["runs"], help="runs, and folders of runs (runs)")
    p.set_defaults(run=run_runs)
    p = commands.add_parser("report", help="a run as one offline HTML page",
                            description="Score a run's test images and write one HTML page: curves, confusion matrix, "
                                        "worst mistakes, attention, and how to repeat the run.")
    p.add_argument("path", metavar="RUN", help="folder of the run")
    p.add_argument("-o", "--out", metavar="FILE", help="the page (RUN/report.html)")
    p.add_argument("--data-dir", metavar="DIR", help="where the files of the data set are now")
    p.add_argument("--threads", type=positive, metavar="N", help="default: one a core")
    p.set_defaults(run=run_report)


def run_runs(args):
    """Print the table of runs, and the settings in which they differ."""
    from ..runs.listing import HEADINGS, find_runs, list_runs
    rows, sentences = list_runs(find_runs(args.folders))
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows)]
    for row in (HEADINGS, *rows):
        print("  ".join(f"{text:<{width}}" for text, width in zip(row, widths)).rstrip())
    for sentence in sentences:
        print(sentence)


def run_report(args):
    """Write the page and say where it is."""
    from ..runs.report import write_report
    check_data_set(args.path, "numpyvit evaluate {quoted} FOLDER scores images of a folder")
    print(write_report(args.path, args.out, args.data_dir, args.threads))
