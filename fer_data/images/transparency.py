"""Shows transparent images as they look on white paper, the same in data sets and in photographs."""

from __future__ import annotations

from PIL import Image


def on_white(image: Image.Image) -> Image.Image:
    """The image pasted on white as RGB if a pixel of it is transparent, otherwise the image as it is.

    Transparent pixels have any colour in the file, usually black, which nobody sees.
    """
    if not image.has_transparency_data:
        return image
    rgba = image.convert("RGBA")
    least, _ = rgba.getchannel("A").getextrema()
    if least == 255:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba).convert("RGB")
