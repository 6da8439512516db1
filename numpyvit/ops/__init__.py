"""The definitions: one op a file, forward beside backward, NumPy only. README.md derives every backward formula."""
