"""Measures a whole cloud on this machine: ``make bench``, or ``python -m bench 1 10 100``."""
