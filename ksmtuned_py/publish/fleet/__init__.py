"""Many hosts at once, as Prometheus knows them."""
