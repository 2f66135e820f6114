"""What can be wrong on a machine, and the command that mends it: one file a subject, and `diagnosis` asks them all.

A subject has `look` functions that give findings. None of them raises, and none changes anything.
"""
