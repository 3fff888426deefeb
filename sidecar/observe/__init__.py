"""What the process tells about itself: events and access lines, through writers that never block the hub."""
