"""The store: one SQLite file that is the truth. Everything in memory can be rebuilt from it.

Nothing here may know a socket, a hub or a client. What a foreign program wrote is read, whatever it is.
"""
