"""The command line: main.py is the entry, a file a group of commands."""
