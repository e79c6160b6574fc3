"""The user's own data sets: folders and tables of images, arrays."""
