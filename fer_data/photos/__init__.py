"""Photographs with faces: decoding them, detecting faces, and cropping these as the training faces are."""
