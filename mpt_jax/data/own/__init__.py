"""Your own data sets: folders and tables of image files, .npz files, and programs that return arrays."""
