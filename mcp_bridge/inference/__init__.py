"""The inference server behind us: client, stream reading, folding, routing by model."""
