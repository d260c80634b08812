"""HERO against the verifier, the reward model and their blend: README.md is the protocol."""
