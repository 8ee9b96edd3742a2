"""What was trained, used: images in; features, classes and neighbors out."""
