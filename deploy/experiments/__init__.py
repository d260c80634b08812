"""Experiments: what the method is worth, measured through the system as users run it."""
