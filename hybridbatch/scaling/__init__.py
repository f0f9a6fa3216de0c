"""Scaling studies: grids of runs, their execution, laws fitted to their results."""
