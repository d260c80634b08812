"""`hero top`: what a run does, out of its broker alone."""
