"""How a terminal and a pipe are spoken to, and read from. No verb is known here."""
