"""Scorers: verify completions, ask the reward model, apply HERO, publish one scored group."""
