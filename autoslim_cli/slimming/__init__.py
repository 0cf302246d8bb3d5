"""Run, cut, widen and steer sub-networks: everything between a network that was read and one that is trained."""
