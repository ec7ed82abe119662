"""Mean and standard deviation that images are normalised by for networks trained on ImageNet."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue, from 0 to 1."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of red, green and blue, from 0 to 1."""
