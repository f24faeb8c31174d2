"""Transport: cost → plan."""
