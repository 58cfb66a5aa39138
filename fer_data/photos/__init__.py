"""Photographs with faces: decoding, detecting faces, cropping them as training faces are."""
