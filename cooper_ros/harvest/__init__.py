"""Frames worth learning from, out of a robot's bags: image, depth, mask, camera and gravity put together."""
