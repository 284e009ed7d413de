"""Importing this ends a template, as a broken native library does; a worker survives it."""

import os
import sys

if sys.argv[0].endswith("launcher.py"):
    os.abort()
