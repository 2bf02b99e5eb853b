"""What happens between a picture with a hole and the networks: kinds of images, padding, large images, blending."""
