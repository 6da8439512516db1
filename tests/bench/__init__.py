"""The measuring tools: numpyvit beside PyTorch on this machine.

    python tests/bench [train_step] …     whole training or inference steps, interleaved, with memory and share of the peak
    python tests/bench ops …              every op of the table of cases alone: kernel, definition, torch
    python tests/bench threads …          throughput from one thread to several
    python tests/bench run_cost …         what a run (augmentation, metrics, progress, checkpoints) adds to its bare steps
    python tests/bench scaling …          step time against the number of pixels
    python tests/bench gains …            what every file of kernels/ gains: a step with its definitions instead
    python tests/bench cold_start …       import, first step with nothing compiled, first step of a later process
    python tests/bench profile MODEL …    one training step as a table of operations

Each prints the machine (instruction set, caches, versions) and a table, writes both as JSON to runs/, and explains its
options with --help.
"""
