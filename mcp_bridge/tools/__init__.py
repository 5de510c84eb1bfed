"""What can be called: sources, the catalog of all of them, and the one runner."""
