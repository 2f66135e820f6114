"""What a published file of waitbus must be, and whether the one at hand is: bytes in, findings out.

Nothing here is loaded by a verb that waits or tells. No network: what only a signature can say is handed to the tools
that know signatures, and what was not looked at is never called good.
"""
