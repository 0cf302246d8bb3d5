"""Train, calibrate and measure networks: data, steps, schedules."""
