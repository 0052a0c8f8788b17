"""Finds what nobody owns: compares the ledger, the custom resources and what agents really have.

``compare`` is pure; ``gather`` turns what was read into what it compares. Nothing is ever changed.
"""
