"""The stage times of a machine: each stage of a run alone, with the system's own code, for the simulation."""
