"""Generative image inpainting with contextual attention (Yu et al., CVPR 2018) on PyTorch Lightning and Hydra."""
