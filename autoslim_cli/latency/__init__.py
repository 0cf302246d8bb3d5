"""Time layers on a device, keep their times, and predict latency from them."""
