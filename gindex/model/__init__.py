"""The model: its loading and checks, tracked layers, losses, and the hooks that observe a pass."""
