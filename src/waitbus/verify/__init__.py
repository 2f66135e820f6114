"""Verifies files of a waitbus release, installations and plugins: bytes in, findings out.

No verb that waits or emits loads this. Nothing here uses the network: signatures are checked by external tools, and
what was not checked is never reported as good.
"""
