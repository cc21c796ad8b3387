"""VCP-CLIP (Qu et al., ECCV 2024)."""
