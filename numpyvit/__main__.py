"""python -m numpyvit"""
import sys

from .cli.main import main

sys.exit(main())
