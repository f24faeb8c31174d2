"""Distillation of a small encoder: a narrow ViT learns to give the patch tokens of a large one."""
