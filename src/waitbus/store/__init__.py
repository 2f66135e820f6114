"""The store: one SQLite file that holds every event. Whatever other parts keep in memory can be rebuilt from it.

Nothing here uses a socket, the hub or a client. Rows that foreign programs wrote can be read, whatever they hold.
"""
