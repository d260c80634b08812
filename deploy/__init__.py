"""The `hero` command and what starts, watches and reports a run."""
