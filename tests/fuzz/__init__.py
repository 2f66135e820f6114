"""Fuzz: every place where bytes or rows of others come in, with many more examples than the suite spends.

``python -m tests.fuzz --help``. A target states what must hold for any input; an unexpected exception is a finding.
"""
