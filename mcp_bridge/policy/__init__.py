"""The rules on the road: access (who sees which tools) and limits."""
