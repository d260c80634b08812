"""What every process of a run shares: the wire, the broker, settings, weights, logs, lifecycle."""

__version__ = "0.1.0"
