"""Stand-ins for the parts behind the seams: healthy by default, and told by a test what goes wrong."""
