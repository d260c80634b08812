"""Reward models: what scores a completion, in process or behind a server, and how one is trained and measured."""
