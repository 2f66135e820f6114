"""Programs that a figure starts, by their path and with the interpreter of the installed package.

They may import nothing of ``benchmarks``. Where the first line of a docstring says so, one runs against 0.2.0, too.
"""
