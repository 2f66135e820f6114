"""The hub: reads committed events from the store and sends each to the subscribers that match it.

`session` is sans-I/O; `server` is the asyncio shell around it.
"""
