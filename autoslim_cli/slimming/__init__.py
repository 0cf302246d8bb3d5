"""Run, cut, widen and constrain sub-networks: everything between a network that was read and one that is trained."""
