"""`hero eval`: held-out accuracy of one or several models that one can quote."""
