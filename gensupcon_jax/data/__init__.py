"""Where images and labels come from, and their way to the devices."""
