"""Who takes part in which program: imports, membership, and what has to be done by when."""
