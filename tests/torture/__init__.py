"""Torture: kill the hub, producers and a subscriber at random under load; nothing may be lost or repeated.

``python -m tests.torture --help``. Every party is a process of its own; the judge is the store, read at the end.
"""
