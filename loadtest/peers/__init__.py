"""Other inference servers and Squint, serving one model and one photo, measured in turns."""
