"""A page to try the served models by hand: draw a digit, or drop an image of clothing."""
