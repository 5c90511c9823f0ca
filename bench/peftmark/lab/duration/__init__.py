"""What a step dispatches, and how long operations take on this machine."""
