"""A season of a grid program at a street of simulated homes, and what judges of it need: nothing here imports the
gateway. Powers in W and energies in Wh, + = discharge (grid: + = import)."""
