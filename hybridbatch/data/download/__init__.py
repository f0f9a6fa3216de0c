"""Files from the hub and the web."""
