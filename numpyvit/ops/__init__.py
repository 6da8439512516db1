"""The definitions: one op a file, forward beside backward, in NumPy alone. README.md derives every backward formula."""
