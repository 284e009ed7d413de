"""An image edited by an instruction (instruct-pix2pix)."""
