"""What the standard library does not give of Linux to whoever runs containers."""
