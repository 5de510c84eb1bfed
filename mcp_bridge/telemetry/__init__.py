"""Logging with secrets taken out; metrics."""
