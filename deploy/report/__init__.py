"""`hero report`: runs as one HTML page, from their folders alone."""
