"""Open Inference Protocol V2: JSON and the binary tensor extension, to and from numpy."""
