"""The specialisations: the same names as in ops/, fused and compiled by Numba. functional.py binds them.

Numba keeps compiled code beside these files, or in the user's cache folder, or in the folder that NUMBA_CACHE_DIR
names. Where none of these can be written, the code goes to a temporary folder and is compiled anew in every process.
"""
import atexit
import gc
import shutil
import tempfile


def import_numba():
    """Numba's package, with the garbage collector paused, and all objects so far put aside from the collector.

    Numba makes 50,000 objects that stay until the process ends. The collector would go through them again and again
    while the kernels load, and take 1 to 5 % of the time to a first step.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        import numba
        gc.freeze()
    finally:
        if enabled:
            gc.enable()
    return numba


def use_temporary_cache_where_needed():
    """Give Numba a cache folder that can be written. UserError if there is none, not even for temporary files."""
    from ..errors import UserError
    try:
        numba.njit(cache=True)(lambda: None)
    except RuntimeError:                                                     # "no locator available"
        try:
            numba.config.CACHE_DIR = tempfile.mkdtemp(prefix="numpyvit-")
        except OSError:
            raise UserError("no folder for compiled code can be written: set NUMBA_CACHE_DIR to one that can") from None
        atexit.register(shutil.rmtree, numba.config.CACHE_DIR, ignore_errors=True)


numba = import_numba()
use_temporary_cache_where_needed()
