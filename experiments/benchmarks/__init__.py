"""What `svg-benchmark` measures."""
