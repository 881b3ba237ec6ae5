"""Results as one HTML page and figures."""
