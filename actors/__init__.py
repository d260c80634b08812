"""Rollout actors: take a ticket, sample a group of completions with vLLM, publish one rollout."""
