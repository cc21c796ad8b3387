"""One frozen CLIP: backbone, towers, text, preprocessing, weights, published archives."""
