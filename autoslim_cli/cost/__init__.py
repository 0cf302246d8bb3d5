"""Say what a network costs: closed forms over the layer table, and fvcore as the referee."""
