"""A run as a folder: its files, its recipe and config, its checkpoints, its curves, and its model as a classifier."""
