"""Hand out labelled images."""
