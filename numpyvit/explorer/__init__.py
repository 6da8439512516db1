"""The explorer: one offline HTML file that steps forward and backward through a model, every number derivable.

    record.py      runs the model once in float64 on arrays that write a tape, with the definitions of ops/
    tape.py        the tape; arrays.py and functions.py: what NumPy does with such arrays
    pack.py        the tape as a program, its steps with witnesses, and the arrays that are given from outside
    document.py    all of it in one HTML file, with the scripts of page/
    page/          engine.js evaluates the program in the browser, derive.js splits a number into terms, the rest draws
"""
