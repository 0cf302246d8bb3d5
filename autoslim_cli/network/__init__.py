"""Read a network once; rebuild it at any channels."""
