"""Door for the operator: health, status, and REST for tools, prompts and resources."""
