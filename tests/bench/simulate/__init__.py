"""What would it cost, and how many of each: the pipeline as a simulation, and a cost model that feeds it."""
