"""Grid programs: who takes part in which, since when, and with whose consent."""
