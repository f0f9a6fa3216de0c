"""The training engine: loss, gradient cache, optimizer, checkpoints, data parallelism and the loop."""
