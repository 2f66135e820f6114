"""Mutants: the product with one small fault at a time; every one must be noticed by a test, or explained in a line.

``python -m tests.mutants --help``. mutmut makes the faults. Its own runner does not fit: it puts every mutant of a
function behind a dispatcher that imports mutmut into the product (the hub may import nothing), sees only what runs in
pytest's own process (the hub is a child), and leaves constants and properties alone. So each mutant is written to a
copy of the tree, and the tests named in `table.toml` run on that copy.
"""
