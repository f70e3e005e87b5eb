"""What Koinon does per second, and how long one waits: measured on a real local network."""
