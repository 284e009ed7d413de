"""Equal calls: bit-identical images, and memory that grows or does not."""
