"""Short training of a graph's weights: what it is trained towards, and the loop."""
