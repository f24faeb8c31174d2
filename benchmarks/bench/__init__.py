"""What the benchmarks share: timing, our model, and the peers that are timed beside it."""
