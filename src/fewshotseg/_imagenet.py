"""The statistics that ImageNet-trained networks expect their images to be normalised with."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Of red, green and blue from 0 to 1."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue from 0 to 1."""
