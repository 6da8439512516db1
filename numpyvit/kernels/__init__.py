"""The specialisations: the same names as in ops/, fused and compiled by Numba. functional.py says what replaces what."""
