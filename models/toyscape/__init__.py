"""Toyscape: generated photo-like scenes with exact labels; needs only numpy and Pillow."""

from models.toyscape.scene import SPLITS, Scene, SceneObject, render, split
from models.toyscape.shapes import CLASSES
from models.toyscape.sheet import contact_sheet

__all__ = ["CLASSES", "SPLITS", "Scene", "SceneObject", "contact_sheet", "render", "split"]
