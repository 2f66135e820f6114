"""The hub: reads what was committed and sends it to whom it concerns.

`session` is sans-I/O, `server` is the asyncio shell.
"""
