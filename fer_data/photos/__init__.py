"""Photographs with faces in them: decoding, finding the faces, cropping them as training faces are."""
