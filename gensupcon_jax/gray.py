"""Weights of red, green and blue in a gray value (ITU-R 601), as rounded by each library."""

TORCHVISION_GRAY = (0.2989, 0.5870, 0.1140)  # also dm_pix
PIL_GRAY = (0.299, 0.587, 0.114)  # also libjpeg and OpenCV
