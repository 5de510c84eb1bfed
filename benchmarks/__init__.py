"""The speed that the project claims, measured: `scripts/bench` (docs/performance.md)."""
