"""Augmentation and mixing of images on the device."""
