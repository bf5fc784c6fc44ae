"""The main job on real input, on real local servers."""
