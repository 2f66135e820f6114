"""One file a verb, named as the verb with `_` for `-`. Each is `configure(parser)` and `run(args) -> int`."""
