"""The client's side of the bus: emit, subscribe, wait, and start a hub when there is none.

`core` and `wait` are sans-I/O; `subscribe` (blocking) and `aio` (asyncio) are thin faces on `core`.
"""
