"""How much red, green and blue count in a gray value (ITU-R 601): each library rounds it in its own way."""

TORCHVISION_GRAY = (0.2989, 0.5870, 0.1140)  # also dm_pix
PIL_GRAY = (0.299, 0.587, 0.114)  # also libjpeg and OpenCV
