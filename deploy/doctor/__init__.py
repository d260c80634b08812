"""`hero doctor`: whether this machine, these settings and their broker are fit for a run."""
