"""The command line: one file a verb, with `configure(parser)` and `run(args) -> int`. Nothing imports this package."""
