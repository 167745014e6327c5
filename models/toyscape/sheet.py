"""A contact sheet of toyscape scenes, with their labels drawn in."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from models.toyscape.scene import render, split
from models.toyscape.shapes import CLASSES


def contact_sheet(path: Path, rows: int = 5, columns: int = 6, first: int = 0, cell: int = 240) -> None:
    """Write rows x columns validation scenes as one picture; the main object's class stands above each."""
    sheet = Image.new("RGB", (columns * cell, rows * cell), (24, 24, 24))
    for number in range(rows * columns):
        scene = render(split("val", first + number))
        picture = Image.fromarray(scene.rgb)
        scale = (cell - 18) / max(picture.size)
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
        )
        draw = ImageDraw.Draw(picture)
        for item in scene.objects:
            draw.rectangle([v * scale for v in item.box], outline=(255, 255, 0))
        x, y = number % columns * cell, number // columns * cell
        sheet.paste(picture, (x, y + 16))
        ImageDraw.Draw(sheet).text((x + 4, y + 2), CLASSES[scene.main], fill=(255, 255, 255))
    sheet.save(path)
